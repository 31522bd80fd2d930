"""How a request proves who asks: bearer, basic, SharedKeyLite, or nothing."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

import httpx
import pytest

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.model import CollectionSetting, ConnectionMethod, RequestMethod
from ita_ag_oase.sources.http_auth import auth_of

ACCOUNT = "account1"
KEY = base64.b64encode(bytes(range(64))).decode()
NOW = 1_700_000_000.9
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def _setting(method: ConnectionMethod, **columns: str | None) -> CollectionSetting:
    secrets = {"auth_token": "", "password": "", "secret_access_key": ""}
    given = {"username": None, "access_key_id": None, **secrets, **columns}
    return CollectionSetting(
        id="1",
        name="n1",
        connection_method=method,
        request_method=RequestMethod.GET,
        url="http://source.test/",
        port=None,
        request_header=None,
        parameter=None,
        proxy=None,
        auth_token=given["auth_token"] or "",
        username=given["username"],
        password=given["password"] or "",
        access_key_id=given["access_key_id"],
        secret_access_key=given["secret_access_key"] or "",
        mailbox=None,
        response_key=None,
        is_list=False,
        event_id_key=None,
        ttl_seconds=60,
        row={},
    )


def _headers(
    setting: CollectionSetting, url: str = "http://source.test/", sent: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what the authentication adds to the headers that are sent anyhow, or changes in them."""
    request = httpx.Request("GET", url, headers=sent)
    before = dict(request.headers)
    auth = auth_of(setting, lambda: NOW)
    if auth is not None:
        request = next(auth.sync_auth_flow(request))
    return {name: value for name, value in request.headers.items() if before.get(name) != value}


@pytest.mark.parametrize("token", ["abc.DEF-1~+/==", " abc.DEF-1~+/==\n", "two words"])
def test_bearer_sends_the_token(token: str) -> None:
    setting = _setting(ConnectionMethod.BEARER, auth_token=token)
    assert _headers(setting) == {"authorization": f"Bearer {token.strip()}"}


def test_bearer_stands_before_what_the_user_wrote() -> None:
    setting = _setting(ConnectionMethod.BEARER, auth_token="token")
    assert _headers(setting, sent={"AUTHORIZATION": "other"}) == {"authorization": "Bearer token"}


@pytest.mark.parametrize(
    ("username", "password"),
    [("user", "pass"), ("user", ""), ("user", "a:b"), ("利用者", "pässwörd"), ("user", " with blanks ")],
)
def test_basic_sends_user_and_password(username: str, password: str) -> None:
    setting = _setting(ConnectionMethod.BASIC, username=username, password=password)
    coded = base64.b64encode(f"{username}:{password}".encode()).decode()
    assert _headers(setting) == {"authorization": f"Basic {coded}"}


def test_no_authentication_adds_nothing() -> None:
    columns = {"auth_token": "token", "username": "user", "password": "pass", "access_key_id": "id"}
    setting = _setting(ConnectionMethod.NONE, **columns)
    assert auth_of(setting, lambda: NOW) is None
    assert _headers(setting) == {}


def _signature(string_to_sign: str) -> str:
    digest = hmac.new(base64.b64decode(KEY), string_to_sign.encode("utf-8"), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        pytest.param("https://a.table.core.windows.net", "/", id="no path"),
        pytest.param("https://a.table.core.windows.net/", "/", id="root"),
        pytest.param("https://a.table.core.windows.net/Tables", "/Tables", id="tables"),
        pytest.param(
            "https://a.table.core.windows.net/events()?$filter=Time%20gt%20'x'&$top=5", "/events()", id="query left out"
        ),
        pytest.param("https://a.table.core.windows.net/?comp=properties", "/?comp=properties", id="component"),
        pytest.param(
            "https://a.table.core.windows.net/t?restype=service&comp=stats&timeout=9", "/t?comp=stats", id="comp alone"
        ),
        pytest.param("http://127.0.0.1:10002/account1/t", "/account1/t", id="emulator"),
        pytest.param("https://a.table.core.windows.net/t(k='a%20b')", "/t(k='a%20b')", id="path as it is sent"),
        pytest.param("https://a.table.core.windows.net/t(k='a b')", "/t(k='a%20b')", id="path that is encoded"),
    ],
)
def test_shared_key_lite_signs_date_and_resource(url: str, resource: str) -> None:
    setting = _setting(ConnectionMethod.SHARED_KEY, access_key_id=ACCOUNT, secret_access_key=KEY)
    # Table service: StringToSign = Date + "\n" + CanonicalizedResource, which is "/" + account + encoded path.
    signature = _signature(f"{DATE}\n/{ACCOUNT}{resource}")
    assert _headers(setting, url) == {
        "x-ms-date": DATE,
        "authorization": f"SharedKeyLite {ACCOUNT}:{signature}",
    }


def test_shared_key_lite_is_a_known_signature() -> None:
    setting = _setting(ConnectionMethod.SHARED_KEY, access_key_id=ACCOUNT, secret_access_key=f" {KEY}\n")
    # openssl dgst -sha256 -mac HMAC, over "Tue, 14 Nov 2023 22:13:20 GMT\n/account1/Tables".
    assert (
        _headers(setting, "http://h/Tables")["authorization"]
        == "SharedKeyLite account1:LmrFIWebva/SHnxIp7hjwz1+XN/MsD2/M0ttpuspbfQ="
    )


def test_the_date_is_that_of_the_request() -> None:
    moments = iter([NOW, NOW + 86_400])
    setting = _setting(ConnectionMethod.SHARED_KEY, access_key_id=ACCOUNT, secret_access_key=KEY)
    auth = auth_of(setting, lambda: next(moments))
    assert auth is not None
    dates = [next(auth.sync_auth_flow(httpx.Request("GET", "http://h/"))) for _ in range(2)]
    assert [request.headers["x-ms-date"] for request in dates] == [DATE, "Wed, 15 Nov 2023 22:13:20 GMT"]


def test_the_key_itself_is_never_sent() -> None:
    setting = _setting(ConnectionMethod.SHARED_KEY, access_key_id=ACCOUNT, secret_access_key=KEY)
    assert KEY not in str(_headers(setting))


@pytest.mark.parametrize(
    ("method", "columns", "problem"),
    [
        pytest.param(
            ConnectionMethod.BEARER, {}, "n1: AUTH_TOKEN is empty: fill it in in Exastro", id="bearer without token"
        ),
        pytest.param(
            ConnectionMethod.BEARER,
            {"auth_token": " \n"},
            "n1: AUTH_TOKEN is empty: fill it in in Exastro",
            id="bearer with blanks",
        ),
        *(
            pytest.param(
                ConnectionMethod.BEARER,
                {"auth_token": token},
                "n1: AUTH_TOKEN holds what no header can, such as a line end: enter it anew in Exastro",
                id=f"bearer with {what}",
            )
            for token, what in (("hidden\nx", "a line end"), ("hidden\0", "a zero"), ("hidden監", "other characters"))
        ),
        pytest.param(
            ConnectionMethod.BASIC,
            {"password": "hidden"},
            "n1: USERNAME is empty: fill it in in Exastro",
            id="basic without user",
        ),
        pytest.param(
            ConnectionMethod.SHARED_KEY,
            {"secret_access_key": KEY},
            "n1: ACCESS_KEY_ID is empty: fill it in in Exastro",
            id="shared key without account",
        ),
        pytest.param(
            ConnectionMethod.SHARED_KEY,
            {"access_key_id": ACCOUNT},
            "n1: SECRET_ACCESS_KEY is empty: fill it in in Exastro",
            id="shared key without key",
        ),
        *(
            pytest.param(
                ConnectionMethod.SHARED_KEY,
                {"access_key_id": ACCOUNT, "secret_access_key": key},
                "n1: SECRET_ACCESS_KEY is no base64: write the account's key as its portal shows it",
                id=f"shared key: {key}",
            )
            for key in ("hidden!", "hidde", "監視", "aGlkZGVu aGlkZGVu")
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told_without_the_secret(
    method: ConnectionMethod, columns: dict[str, str | None], problem: str
) -> None:
    with pytest.raises(SettingInvalid) as caught:
        auth_of(_setting(method, **columns), lambda: NOW)
    assert (str(caught.value), caught.value.reason) == (problem, Reason.SETTING)
