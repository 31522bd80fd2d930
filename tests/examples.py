"""Values that several tests start from."""

from ita_ag_oase.model import CollectionSetting, ConnectionMethod, RequestMethod

# An HTTP source without authentication that lists events with ids.
SETTING = CollectionSetting(
    id="1",
    name="n1",
    connection_method=ConnectionMethod.NONE,
    request_method=RequestMethod.GET,
    url="http://source.test/",
    port=None,
    request_header=None,
    parameter=None,
    proxy=None,
    auth_token="",
    username=None,
    password="",
    access_key_id=None,
    secret_access_key="",
    mailbox=None,
    response_key=None,
    is_list=True,
    event_id_key="id",
    ttl_seconds=60,
    row={},
)
