"""How Exastro and the sources are reached with a configuration: certificates, proxies, credentials."""

import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx

from ita_ag_oase import clock, transport
from ita_ag_oase.errors import ConfigError
from ita_ag_oase.exastro.auth import AccessTokens, Facts, RefreshTokenAuth
from ita_ag_oase.exastro.client import ExastroClient, require_turn
from ita_ag_oase.model import CollectionSetting, Destination, Exchange
from ita_ag_oase.settings import Settings
from ita_ag_oase.sources.http import HttpClients
from ita_ag_oase.sources.source import LocatedSource, open_source
from ita_ag_oase.text import Text


def exastro_tls(settings: Settings) -> ssl.SSLContext:
    """Return what connections to Exastro are encrypted with. Raises ConfigError for a CA file without a certificate."""
    return _tls("EXASTRO_CA_FILE", verify=settings.exastro_tls_verify, ca_file=settings.exastro_ca_file)


def source_tls(settings: Settings) -> ssl.SSLContext:
    """Return what connections to sources are encrypted with. Raises ConfigError likewise."""
    return _tls("SOURCE_CA_FILE", verify=settings.source_tls_verify, ca_file=settings.source_ca_file)


class Encryption:
    """What HTTP connections are encrypted with: certificates are read when one first is, once for equal settings.

    Those of a CA file are read at once. Raises ConfigError where it holds none.
    """

    def __init__(self, settings: Settings) -> None:
        exastro = settings.exastro_tls_verify, settings.exastro_ca_file
        sources = settings.source_tls_verify, settings.source_ca_file
        self.exastro = functools.cache(functools.partial(exastro_tls, settings))
        self.sources = self.exastro if sources == exastro else functools.cache(functools.partial(source_tls, settings))
        if settings.exastro_ca_file is not None:
            self.exastro()
        if settings.source_ca_file is not None:
            self.sources()


def exastro_destination(settings: Settings) -> Destination:
    """Return where requests to Exastro go."""
    url = httpx.URL(settings.exastro_url)
    is_encrypted = url.scheme == "https"
    return Destination(
        host=url.host,
        port=url.port or (443 if is_encrypted else 80),
        is_encrypted=is_encrypted,
        proxy=_proxies(settings).choose(url),
    )


@asynccontextmanager
async def open_exastro(
    settings: Settings,
    facts: Facts,
    *,
    encryption: Encryption | None = None,
    on_secret: Callable[[str], None],
    on_date: Callable[[float], Awaitable[None]],
    on_expiry: Callable[[float], None] = lambda _: None,
    is_at_work: Callable[[], bool] = lambda: True,
) -> AsyncIterator[ExastroClient]:
    """Yield the configured workspace's API; `on_date` is told the time of Exastro's clock at each answer, in seconds.

    `on_expiry` is told when a new access token ends, in epoch seconds, where a refresh token is configured. Where
    `is_at_work` denies, each call raises TermEnded and nothing is sent, not even for a token: a realm that rotates them
    takes an old one for a stolen one.
    Raises ConfigError for a CA file that holds no certificate.
    """
    url = httpx.URL(settings.exastro_url)
    encryption = encryption or Encryption(settings)
    client = httpx.AsyncClient(
        verify=encryption.exastro() if url.scheme == "https" else transport.no_tls(),
        proxy=_proxies(settings).choose(url),
        trust_env=False,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": transport.ACCEPTED_ENCODING,
            "User-Agent": transport.USER_AGENT,
        },
        event_hooks={
            "request": [functools.partial(_require_turn, is_at_work)],
            "response": [functools.partial(_note_date, on_date)],
        },
    )
    base_url = (
        f"{settings.exastro_url}/api/{settings.exastro_organization_id}/workspaces/{settings.exastro_workspace_id}"
    )
    async with client, _open_auth(settings, client, facts, on_secret, on_expiry) as auth:
        yield ExastroClient(client, auth, base_url=base_url)


class SourceMaker(Protocol):
    """Makes the source of a setting."""

    def __call__(
        self, setting: CollectionSetting, *, on_exchange: Callable[[Exchange], None] | None = None
    ) -> LocatedSource:
        """Return it; `on_exchange` is told of each HTTP request that was sent. Raises SettingInvalid."""


@asynccontextmanager
async def open_sources(settings: Settings, encryption: Encryption | None = None) -> AsyncIterator[SourceMaker]:
    """Yield what makes the source of a setting, and raises SettingInvalid where there can be none.

    Raises ConfigError for a CA file that holds no certificate.
    """
    encryption = encryption or Encryption(settings)
    clients = HttpClients(make_tls=encryption.sources, proxies=_proxies(settings))
    # Made when the first mailbox needs it, and not that of HTTP: httpx puts HTTP's name into it (ALPN).
    mail_tls = functools.cache(functools.partial(source_tls, settings))
    zone = clock.zone(settings.tz)

    def make_source(
        setting: CollectionSetting, *, on_exchange: Callable[[Exchange], None] | None = None
    ) -> LocatedSource:
        return open_source(
            setting,
            clients,
            make_tls=mail_tls,
            max_bytes=settings.response_max_bytes,
            zone=zone,
            on_exchange=on_exchange,
        )

    try:
        yield make_source
    finally:
        await clients.close()


@asynccontextmanager
async def _open_auth(
    settings: Settings,
    client: httpx.AsyncClient,
    facts: Facts,
    on_secret: Callable[[str], None],
    on_expiry: Callable[[float], None],
) -> AsyncIterator[httpx.Auth]:
    refresh_token = settings.refresh_token
    if refresh_token is None:
        yield httpx.BasicAuth(settings.exastro_username or "", settings.password or "")
        return
    organization = settings.exastro_organization_id
    tokens = AccessTokens(
        client,
        token_url=f"{settings.exastro_url}/auth/realms/{organization}/protocol/openid-connect/token",
        client_id=f"_{organization}-api",
        refresh_token=refresh_token,
        facts=facts,
        on_secret=on_secret,
        on_expiry=on_expiry,
    )
    try:
        yield RefreshTokenAuth(tokens)
    finally:
        await tokens.close()


async def _require_turn(is_at_work: Callable[[], bool], _: httpx.Request) -> None:
    require_turn(is_at_work)


async def _note_date(on_date: Callable[[float], Awaitable[None]], response: httpx.Response) -> None:
    date = transport.date_seconds(response)
    if date is not None:
        await on_date(date)


def _proxies(settings: Settings) -> transport.Proxies:
    return transport.Proxies(http=settings.http_proxy, https=settings.https_proxy, no_proxy=settings.no_proxy)


def _tls(variable: str, *, verify: bool, ca_file: Path | None) -> ssl.SSLContext:
    try:
        return transport.tls_context(verify=verify, ca_file=ca_file)
    except OSError as err:
        problem = Text("{file} holds no certificate; write the path of a PEM file", file=ca_file)
        raise ConfigError([(variable, problem)]) from err
