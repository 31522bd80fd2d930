"""How a request proves to an HTTP source who asks: each way one httpx.Auth."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Generator
from email.utils import formatdate

import httpx

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.model import CollectionSetting, ConnectionMethod
from ita_ag_oase.text import Text

# What a header's value can be made of (RFC 9110 section 5.5).
_HEADER_TEXT = re.compile(r"[\x20-\x7e]+")


def auth_of(setting: CollectionSetting, now: Callable[[], float]) -> httpx.Auth | None:
    """Return the authentication that a setting asks for, or None.

    Raises SettingInvalid where what it needs is missing, or cannot be sent.
    """
    match setting.connection_method:
        case ConnectionMethod.BEARER:
            return BearerAuth(_token(_required(setting.auth_token.strip(), setting, "AUTH_TOKEN"), setting))
        case ConnectionMethod.BASIC:
            return httpx.BasicAuth(_required(setting.username, setting, "USERNAME"), setting.password)
        case ConnectionMethod.SHARED_KEY:
            account = _required(setting.access_key_id, setting, "ACCESS_KEY_ID")
            key = _required(setting.secret_access_key.strip(), setting, "SECRET_ACCESS_KEY")
            return SharedKeyLiteAuth(account, _decoded_key(key, setting), now)
        case _:
            # A user in the URL still counts then, as RFC 3986 section 3.2.1 has it.
            return None


def _required(value: str | None, setting: CollectionSetting, column: str) -> str:
    if not value:
        raise SettingInvalid(
            Text("{setting}: {column} is empty: fill it in in Exastro", setting=setting.name, column=column),
            reason=Reason.SETTING,
        )
    return value


def _token(text: str, setting: CollectionSetting) -> str:
    if not _HEADER_TEXT.fullmatch(text):
        raise SettingInvalid(
            Text(
                "{setting}: AUTH_TOKEN holds what no header can, such as a line end: enter it anew in Exastro",
                setting=setting.name,
            ),
            reason=Reason.SETTING,
        )
    return text


def _decoded_key(key: str, setting: CollectionSetting) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as err:
        raise SettingInvalid(
            Text(
                "{setting}: SECRET_ACCESS_KEY is no base64: write the account's key as its portal shows it",
                setting=setting.name,
            ),
            reason=Reason.SETTING,
        ) from err


class BearerAuth(httpx.Auth):
    """A token in the Authorization header (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class SharedKeyLiteAuth(httpx.Auth):
    """Shared Key Lite of Azure Storage's Table service: a signature over date and resource, never the key itself.

    Signed is the date, a line end, and the resource: `/account`, the path as it is sent, and `?comp=…` where the query
    has it ("Authorize with Shared Key" in the Azure Storage REST reference).
    """

    def __init__(self, account: str, key: bytes, now: Callable[[], float]) -> None:
        self._account = account
        self._key = key
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        date = formatdate(self._now(), usegmt=True)
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        component = request.url.params.get("comp")
        resource = f"/{self._account}{path}" + (f"?comp={component}" if component is not None else "")
        digest = hmac.new(self._key, f"{date}\n{resource}".encode(), hashlib.sha256).digest()
        request.headers["x-ms-date"] = date
        request.headers["Authorization"] = f"SharedKeyLite {self._account}:{base64.b64encode(digest).decode()}"
        yield request
