"""Exastro's names and numbers (protocol sections 1.3 and 1.5): rows in, bodies out, messages understood."""

import json
from typing import Any

import pytest

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.exastro.wire import Verdict
from ita_ag_oase.model import Batch, CollectionSetting, ConnectionMethod, Group, RequestMethod

SECRETS = SecretColumns("org1", "ws1")
OTHER_WORKSPACE = SecretColumns("org1", "ws2")


def _row(**columns: Any) -> dict[str, Any]:
    return {
        "EVENT_COLLECTION_SETTINGS_ID": "11111111-2222-4333-8444-555555555555",
        "EVENT_COLLECTION_SETTINGS_NAME": "n1",
        "CONNECTION_METHOD_ID": "5",
        "REQUEST_METHOD_ID": "1",
        "URL": "http://source/api",
        "PORT": None,
        "REQUEST_HEADER": None,
        "PARAMETER": None,
        "PROXY": None,
        "AUTH_TOKEN": None,
        "USERNAME": None,
        "PASSWORD": None,
        "ACCESS_KEY_ID": None,
        "SECRET_ACCESS_KEY": None,
        "MAILBOXNAME": None,
        "RESPONSE_KEY": None,
        "RESPONSE_LIST_FLAG": "0",
        "EVENT_ID_KEY": None,
        "TTL": 3600,
        **columns,
    }


def _setting(**columns: Any) -> CollectionSetting:
    return wire.setting_of(_row(**columns), SECRETS)


def _problem(**columns: Any) -> str:
    with pytest.raises(SettingInvalid) as caught:
        _setting(**columns)
    assert caught.value.reason is Reason.SETTING
    return str(caught.value)


def test_every_column_of_a_row_reaches_the_setting() -> None:
    row = _row(
        CONNECTION_METHOD_ID="4",
        REQUEST_METHOD_ID="4",
        URL="imap.example",
        PORT=143,
        REQUEST_HEADER='{"a": "b"}',
        PARAMETER='{"c": {{ 1 }}}',
        PROXY="socks5://proxy:1080",
        AUTH_TOKEN=SECRETS.encrypt("t0ken"),
        USERNAME="user",
        PASSWORD=SECRETS.encrypt("passw0rd"),
        ACCESS_KEY_ID="account",
        SECRET_ACCESS_KEY=SECRETS.encrypt("k3y"),
        MAILBOXNAME="INBOX/alarms",
        RESPONSE_KEY="result.items",
        RESPONSE_LIST_FLAG="1",
        EVENT_ID_KEY="id",
        TTL=90,
        NOTE="a note",
    )
    assert wire.setting_of(row, SECRETS) == CollectionSetting(
        id="11111111-2222-4333-8444-555555555555",
        name="n1",
        connection_method=ConnectionMethod.IMAP_PASSWORD,
        request_method=RequestMethod.IMAP_STARTTLS,
        url="imap.example",
        port=143,
        request_header='{"a": "b"}',
        parameter='{"c": {{ 1 }}}',
        proxy="socks5://proxy:1080",
        auth_token="t0ken",
        username="user",
        password="passw0rd",
        access_key_id="account",
        secret_access_key="k3y",
        mailbox="INBOX/alarms",
        response_key=None,
        is_list=True,
        event_id_key=None,
        ttl_seconds=90,
        row={**row, "AUTH_TOKEN": "t0ken", "PASSWORD": "passw0rd", "SECRET_ACCESS_KEY": "k3y"},
    )


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        pytest.param(("5", "1"), ("result.items", False, "id"), id="HTTP"),
        pytest.param(("4", "3"), (None, True, None), id="mail"),
    ],
)
def test_keys_that_read_an_answer_do_not_apply_to_mail(methods: tuple[str, str], expected: tuple[Any, ...]) -> None:
    columns = {"RESPONSE_KEY": "result.items", "RESPONSE_LIST_FLAG": "0", "EVENT_ID_KEY": "id"}
    setting = _setting(CONNECTION_METHOD_ID=methods[0], REQUEST_METHOD_ID=methods[1], **columns)
    assert (setting.response_key, setting.is_list, setting.event_id_key) == expected


@pytest.mark.parametrize("empty", [None, ""], ids=["null", "empty text"])
def test_columns_without_content_are_absent_in_the_setting(empty: str | None) -> None:
    names = ("REQUEST_HEADER", "PARAMETER", "PROXY", "AUTH_TOKEN", "USERNAME", "PASSWORD", "ACCESS_KEY_ID")
    more = ("SECRET_ACCESS_KEY", "MAILBOXNAME", "RESPONSE_KEY", "EVENT_ID_KEY", "PORT", "TTL")
    setting = _setting(**dict.fromkeys((*names, *more), empty))
    texts = (setting.request_header, setting.parameter, setting.proxy, setting.username, setting.access_key_id)
    assert (texts, setting.mailbox, setting.response_key, setting.event_id_key) == ((None,) * 5, None, None, None)
    assert (setting.port, setting.ttl_seconds, setting.secrets) == (None, 0, ())


def test_columns_that_are_missing_count_as_empty() -> None:
    needed = ("EVENT_COLLECTION_SETTINGS_ID", "EVENT_COLLECTION_SETTINGS_NAME", "CONNECTION_METHOD_ID", "URL")
    row = {name: value for name, value in _row().items() if name in (*needed, "REQUEST_METHOD_ID")}
    setting = wire.setting_of(row, SECRETS)
    assert (setting.response_key, setting.is_list, setting.ttl_seconds, setting.auth_token) == (None, False, 0, "")


def test_encryption_of_the_empty_text_is_no_secret() -> None:
    empty = SECRETS.encrypt("")
    setting = _setting(AUTH_TOKEN=empty, PASSWORD=empty, SECRET_ACCESS_KEY=SECRETS.encrypt("k3y"))
    assert (setting.auth_token, setting.password, setting.secrets) == ("", "", ("k3y",))


def test_unknown_columns_pass_through_to_templates() -> None:
    row = _row(NOTE="ノート", DISUSE_FLAG="0", COLUMN_OF_A_LATER_RELEASE={"deep": [1, None]})
    assert wire.setting_of(row, SECRETS).row == {**row, "AUTH_TOKEN": "", "PASSWORD": "", "SECRET_ACCESS_KEY": ""}


CONNECTIONS = [
    ("1", "1", ConnectionMethod.BEARER, RequestMethod.GET),
    ("2", "2", ConnectionMethod.BASIC, RequestMethod.POST),
    ("3", "1", ConnectionMethod.SHARED_KEY, RequestMethod.GET),
    ("4", "3", ConnectionMethod.IMAP_PASSWORD, RequestMethod.IMAP_TLS),
    ("4", "4", ConnectionMethod.IMAP_PASSWORD, RequestMethod.IMAP_STARTTLS),
    ("4", "5", ConnectionMethod.IMAP_PASSWORD, RequestMethod.IMAP_PLAIN),
    ("5", "2", ConnectionMethod.NONE, RequestMethod.POST),
]


@pytest.mark.parametrize("kind", [str, int], ids=["text", "number"])
@pytest.mark.parametrize(("connection", "request_", "method", "way"), CONNECTIONS, ids=str)
def test_numbers_of_methods_are_understood(
    connection: str, request_: str, method: ConnectionMethod, way: RequestMethod, kind: type
) -> None:
    setting = _setting(CONNECTION_METHOD_ID=kind(connection), REQUEST_METHOD_ID=kind(request_))
    assert (setting.connection_method, setting.request_method) == (method, way)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"CONNECTION_METHOD_ID": "6"},
            "n1: CONNECTION_METHOD_ID is '6', not one of 1, 2, 3, 4, 5: mend it in Exastro",
        ),
        ({"CONNECTION_METHOD_ID": None}, "n1: CONNECTION_METHOD_ID is 'None', not one of 1, 2, 3, 4, 5: mend"),
        ({"REQUEST_METHOD_ID": "3"}, "n1: REQUEST_METHOD_ID is '3', not one of 1, 2: mend it in Exastro"),
        (
            {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "1"},
            "n1: REQUEST_METHOD_ID is '1', not one of 3, 4, 5: mend it in Exastro",
        ),
        ({"REQUEST_METHOD_ID": ["1"]}, "n1: REQUEST_METHOD_ID is \"['1']\", not one of 1, 2: mend it in Exastro"),
        ({"URL": None}, "n1: URL is empty: fill it in in Exastro"),
        ({"URL": ""}, "n1: URL is empty: fill it in in Exastro"),
        ({"EVENT_COLLECTION_SETTINGS_ID": None}, "n1: EVENT_COLLECTION_SETTINGS_ID is empty: fill it in in Exastro"),
        ({"TTL": "soon"}, "n1: TTL is 'soon', no whole number from 0 to 2147483647: mend it in Exastro"),
        ({"TTL": 1.5}, "n1: TTL is '1.5', no whole number from 0 to 2147483647: mend it in Exastro"),
        ({"TTL": -1}, "n1: TTL is '-1', no whole number from 0 to 2147483647: mend it in Exastro"),
        ({"TTL": True}, "n1: TTL is 'true', no whole number from 0 to 2147483647: mend it in Exastro"),
        # An end time beyond 64 bits could not be written at all.
        ({"TTL": 10**30}, "n1: TTL is '10000000000000000000', no whole number from 0 to 2147483647: mend"),
    ],
)
def test_bad_value_is_refused_and_its_column_named(columns: dict[str, Any], message: str) -> None:
    assert _problem(**columns).startswith(message)


@pytest.mark.parametrize("port", ["abc", 0, 65_536, -25, "9" * 5_000], ids=["text", "0", "65536", "negative", "long"])
def test_bad_port_of_a_mailbox_is_refused(port: Any) -> None:
    message = _problem(CONNECTION_METHOD_ID="4", REQUEST_METHOD_ID="3", PORT=port)
    assert message == f"n1: PORT is {str(port)[:20]!r}, no whole number from 1 to 65535: mend it in Exastro"


@pytest.mark.parametrize("port", [None, "", 0, 8080, "junk"])
def test_port_of_an_http_row_does_not_matter(port: Any) -> None:
    assert _setting(PORT=port).port is None


@pytest.mark.parametrize(("given", "used"), [(993, 993), ("143", 143), (None, None), ("", None)])
def test_port_of_a_mailbox_is_read(given: Any, used: int | None) -> None:
    assert _setting(CONNECTION_METHOD_ID="4", REQUEST_METHOD_ID="3", PORT=given).port == used


@pytest.mark.parametrize(("given", "used"), [(3600, 3600), ("90", 90), (0, 0), (2**31 - 1, 2**31 - 1)])
def test_ttl_is_read(given: Any, used: int) -> None:
    assert _setting(TTL=given).ttl_seconds == used


@pytest.mark.parametrize(
    ("flag", "is_list"), [("1", True), (1, True), ("0", False), (0, False), (None, False), ("", False), ("true", False)]
)
def test_list_flag_is_read(flag: Any, is_list: bool) -> None:
    assert _setting(RESPONSE_LIST_FLAG=flag).is_list is is_list


def test_json_column_that_came_decoded_is_taken_as_its_text() -> None:
    setting = _setting(REQUEST_HEADER={"x": "ü"}, PARAMETER=[1, {"a": None}], USERNAME=7)
    assert (setting.request_header, setting.parameter, setting.username) == ('{"x": "ü"}', '[1, {"a": null}]', "7")


@pytest.mark.parametrize("column", ["AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY"])
def test_secret_of_another_workspace_names_its_column(column: str) -> None:
    # Of random vectors a few decrypt into some other text; this one does not.
    text = "AAECAwQFBgcICQoLDA0OD5zP1th8W9voYc0c2rALRnc="
    assert SECRETS.decrypt(text, column=column) == "s3cr3t"
    with pytest.raises(SettingInvalid, match=f"^{column} cannot be decrypted: check that EXASTRO_ORGANIZATION_ID and"):
        wire.setting_of(_row(**{column: text}), OTHER_WORKSPACE)


@pytest.mark.parametrize(("method", "is_collected"), [("99", False), (99, False), ("1", True), (5, True), (None, True)])
def test_row_that_no_agent_collects_is_recognized(method: Any, is_collected: bool) -> None:
    assert wire.is_collected_by_agents(_row(CONNECTION_METHOD_ID=method)) is is_collected


@pytest.mark.parametrize(
    ("row", "name"),
    [({"EVENT_COLLECTION_SETTINGS_NAME": "n 1"}, "n 1"), ({"EVENT_COLLECTION_SETTINGS_NAME": None}, ""), ({}, "")],
)
def test_name_is_found_whatever_else_a_row_holds(row: dict[str, Any], name: str) -> None:
    assert wire.name_of(row) == name


def test_secrets_do_not_show_in_a_setting() -> None:
    names = ("AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY")
    setting = _setting(**{name: SECRETS.encrypt(f"s3cr3t of {name}") for name in names}, PROXY="http://u:s3cr3t@p:1")
    assert "s3cr3t" not in repr(setting)


def _group(
    number: int = 1,
    *pieces: bytes,
    setting_id: str | None = "id-1",
    name: str = "n1",
    fetched_time: int = 1_704_034_800,
    agent_name: str = "agent",
) -> Group:
    return Group(
        number=number,
        setting_id=setting_id,
        setting_name=name,
        agent_name=agent_name,
        fetched_time=fetched_time,
        event_count=1,
        pieces=pieces or (b'{"a":1}',),
        was_offered=False,
    )


def _body(*groups: Group) -> Any:
    return json.loads(b"".join(wire.body_of(Batch(groups), "2.7.1")))


def test_body_of_one_group_is_the_object_of_the_protocol() -> None:
    assert _body(_group(1, b'{"a":1},{"b":[{}]}')) == {
        "events": [
            {
                "fetched_time": 1_704_034_800,
                "event_collection_settings_id": "id-1",
                "agent": {"name": "agent", "version": "2.7.1"},
                "event": [{"a": 1}, {"b": [{}]}],
            }
        ]
    }


def test_body_of_several_groups_keeps_their_order_and_all_their_pieces() -> None:
    groups = (
        _group(1, b'{"a":1}', b'{"a":2},{"a":3}', b'{"a":4}'),
        _group(2, b'{"b":"\xe7\xa7\x98 \\" ]}"}', name='"quoted" \\ 設定', setting_id=None, agent_name='pod-"1"\n'),
        _group(3, b"{}", fetched_time=1_704_034_801),
    )
    assert _body(*groups) == {
        "events": [
            {
                "fetched_time": 1_704_034_800,
                "event_collection_settings_id": "id-1",
                "agent": {"name": "agent", "version": "2.7.1"},
                "event": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}],
            },
            {
                "fetched_time": 1_704_034_800,
                "event_collection_settings_name": '"quoted" \\ 設定',
                "agent": {"name": 'pod-"1"\n', "version": "2.7.1"},
                "event": [{"b": '秘 " ]}'}],
            },
            {
                "fetched_time": 1_704_034_801,
                "event_collection_settings_id": "id-1",
                "agent": {"name": "agent", "version": "2.7.1"},
                "event": [{}],
            },
        ]
    }


def test_stored_bytes_of_events_are_sent_as_they_are() -> None:
    stored = b'{"n":1.10, "big":123456789012345678901234567890,"e":1E5,"u":"\\u79d8"}'
    assert stored in b"".join(wire.body_of(Batch((_group(1, stored),)), "2.7.1"))


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("499-01818: not the newest fetched_time", Verdict.NOT_NEWER),
        ("[499-01818] fetched_time が古いです (設定 n1)", Verdict.NOT_NEWER),
        ("Error(499-01818)", Verdict.NOT_NEWER),
        ("the fetched_time is not newer", Verdict.NOT_NEWER),
        ("499-01801: unknown event collection setting", Verdict.REFUSED),
        ("499-01827: discarded", Verdict.REFUSED),
        ("499-01827: discarded, whatever its fetched_time", Verdict.REFUSED),
        ("499-01801 (setting 499-01818)", Verdict.REFUSED),
        ("{'code': '499-01818', 'n': 1}", Verdict.NOT_NEWER),
        ("1499-018180 is no code, n1 is not there", Verdict.REFUSED),
        ("", Verdict.REFUSED),
    ],
)
def test_message_is_judged_by_its_code(message: str, verdict: Verdict) -> None:
    assert wire.verdict_of(message) is verdict


@pytest.mark.parametrize(
    ("message", "setting_id", "is_there"),
    [
        ("499-01818: (id-1)", "id-1", True),
        ("499-01818: (id-2)", "id-1", False),
        ("499-01818: None", None, False),
    ],
)
def test_id_in_a_message_is_recognized(message: str, setting_id: str | None, is_there: bool) -> None:
    assert wire.has_id(message, _group(setting_id=setting_id)) is is_there


@pytest.mark.parametrize(
    ("message", "name", "is_there"),
    [
        ("499-01818: (n1)", "n1", True),
        ("n1", "n1", True),
        ("setting=n1,", "n1", True),
        ("設定:監視サーバ", "監視サーバ", True),
        ("499-01818: (n10)", "n1", False),
        ("499-01818: (n1-a)", "n1", False),
        ("499-01818: (my-n1)", "n1", False),
        ("499-01818: (n.1)", "n.1", True),
        ("499-01818: (nx1)", "n.1", False),
        ("499-01818: ([a] (b)*)", "[a] (b)*", True),
    ],
)
def test_name_in_a_message_is_recognized_as_a_word(message: str, name: str, is_there: bool) -> None:
    assert wire.has_name(message, _group(name=name)) is is_there


@pytest.mark.parametrize(
    ("message", "time"),
    [
        ("499-01818: newest 1704034800", 1_704_034_800),
        ("1704034800 <= 1704034900, offered", 1_704_034_900),
        ("1704034900>1704034800", 1_704_034_900),
        ("499-01818: (11111111-2222-4333-8444-555555555555)", 0),
        ("499-01818: (123456789-a)", 0),
        ("n1704034800", 0),
        ("170403480000000000", 0),
        ("12345678", 0),
        ("", 0),
    ],
)
def test_greatest_time_in_a_message_is_found(message: str, time: int) -> None:
    assert wire.greatest_time(message) == time
