"""Which mailbox a setting names, on which server, and how that is reached."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.model import CollectionSetting, Destination, RequestMethod
from ita_ag_oase.text import Text

_PORTS = {RequestMethod.IMAP_TLS: 993, RequestMethod.IMAP_STARTTLS: 143, RequestMethod.IMAP_PLAIN: 143}
_SOCKS_PORT = 1_080
_HOST = re.compile(r"[^\s/@\\\[\]]+")


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """A SOCKS5 proxy (RFC 1928) that a connection goes through."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """Which mailbox to open, where, and how."""

    host: str
    port: int
    security: RequestMethod
    username: str
    password: str = field(repr=False)
    mailbox: str
    proxy: SocksProxy | None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}"

    @property
    def destination(self) -> Destination:
        """Where a connection goes."""
        proxy = self.proxy
        return Destination(
            host=self.host,
            port=self.port,
            is_encrypted=self.security is RequestMethod.IMAP_TLS,
            starts_tls=self.security is RequestMethod.IMAP_STARTTLS,
            proxy=f"socks5://{proxy.host}:{proxy.port}" if proxy else None,
        )

    @property
    def identity(self) -> str:
        """What tells the mailbox from others, however it is reached."""
        return f"{self.username}@{self.host}/{self.mailbox}"


def server_of(setting: CollectionSetting) -> Server:
    """Return what a setting says of its mailbox. Raises SettingInvalid, naming the column."""
    if setting.request_method not in _PORTS:
        raise _invalid(setting, Text("REQUEST_METHOD_ID must be TLS, STARTTLS or plain text"))
    host = setting.url.strip().removeprefix("[").removesuffix("]")
    if not _is_host(host):
        raise _invalid(setting, Text("URL must be the name of the mail server alone, such as imap.example.com"))
    if not setting.username:
        raise _invalid(setting, Text("USERNAME is empty: fill it in in Exastro"))
    return Server(
        host=host,
        port=setting.port or _PORTS[setting.request_method],
        security=setting.request_method,
        username=setting.username,
        password=setting.password,
        mailbox=setting.mailbox or "INBOX",
        proxy=_proxy_of(setting),
    )


def _is_host(text: str) -> bool:
    try:
        return _HOST.fullmatch(text) is not None and bool(text.encode("idna"))
    except UnicodeError:
        return False


def _proxy_of(setting: CollectionSetting) -> SocksProxy | None:
    if not setting.proxy:
        return None
    text = setting.proxy.strip()
    try:
        url = urlsplit(text if "://" in text else f"socks5://{text}")
        username, password = (unquote(part) if part else None for part in (url.username, url.password))
        if url.scheme in ("socks5", "socks5h") and url.hostname and f"{username}{password}".isascii():
            return SocksProxy(url.hostname, url.port or _SOCKS_PORT, username, password)
    except ValueError:
        # Its text may hold a part of a password.
        pass
    raise _invalid(setting, Text("PROXY is no URL of a SOCKS5 proxy: write one such as socks5://proxy:1080"))


def _invalid(setting: CollectionSetting, why: Text) -> SettingInvalid:
    return SettingInvalid(Text("{setting}: {why}", setting=setting.name, why=why), reason=Reason.SETTING)
