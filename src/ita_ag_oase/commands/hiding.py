"""Requests as they can be shown: without what could be a credential, whether or not it is known as one."""

import json
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ita_ag_oase.model import Exchange
from ita_ag_oase.observability.logs import MASK

# Parts of names that credentials go by in headers, queries and bodies.
_CREDENTIAL = re.compile(
    r"auth(?!ors?(?:$|[_-]))|cookie|credential|(?:^|[_-]|api|access)key$|passw|pwd|secret|session|^sig$|signature|token",
    re.IGNORECASE,
)


def is_credential(name: str) -> bool:
    """Whether a name could be that of a credential."""
    return _CREDENTIAL.search(name) is not None


def headers_of(exchange: Exchange) -> list[tuple[str, str]]:
    """Return the headers, credentials hidden."""
    return [(name, MASK if is_credential(name) else value) for name, value in exchange.headers]


def url_of(exchange: Exchange) -> str:
    """Return the URL, user and credentials in the query hidden."""
    parts = urlsplit(exchange.url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{MASK}@{host}" if "@" in parts.netloc else host
    query = "&".join(_pair(pair) for pair in parts.query.split("&"))
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def body_of(exchange: Exchange) -> Any:
    """Return what the JSON of the body says, credentials hidden; None for an empty one."""
    if not exchange.body:
        return None
    try:
        return _hidden(json.loads(exchange.body))
    except ValueError:
        return exchange.body.decode(errors="replace")


def _pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={MASK}" if equals and is_credential(name) else pair


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: MASK if is_credential(name) else _hidden(member) for name, member in value.items()}
    return [_hidden(element) for element in value] if isinstance(value, list) else value
