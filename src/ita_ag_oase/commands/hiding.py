"""Requests as they can be shown: without what could be a credential, whether or not it is known as one."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit, urlunsplit

from ita_ag_oase.model import Exchange
from ita_ag_oase.observability.logs import MASK

# Parts of names that credentials go by in headers, queries and bodies.
_CREDENTIAL = re.compile(
    r"api[_-]?key|auth(?!ors?(?:$|[_-]))|bearer|cookie|credential|hmac|jwt|(?<!mon)key$|(?:^|[_-])pass(?:$|[_-])"
    r"|passcode|passphrase|passw|pwd|secret|session|(?:^|[_-])s(?:id|ig)(?:$|[_-])|signature|token",
    re.IGNORECASE,
)
# Shorter values are too common to be looked for in an answer.
_LONG_CHARACTERS = 8


def is_credential(name: str) -> bool:
    """Whether a name could be that of a credential."""
    return _CREDENTIAL.search(name) is not None


def headers_of(exchange: Exchange) -> list[tuple[str, str]]:
    """Return the headers, credentials hidden."""
    return [(name, MASK if is_credential(name) else value) for name, value in exchange.headers]


def url_of(exchange: Exchange) -> str:
    """Return the URL as it was sent, without a fragment; user and credentials in the query are hidden."""
    parts = urlsplit(exchange.url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{MASK}@{host}" if "@" in parts.netloc else host
    return urlunsplit(parts._replace(netloc=netloc, query=_query(parts.query), fragment=""))


def body_of(exchange: Exchange) -> Any:
    """Return what the JSON of the body says, credentials hidden; None for an empty one."""
    if not exchange.body:
        return None
    try:
        return _hidden(json.loads(exchange.body))
    except ValueError:
        return exchange.body.decode(errors="replace")


def credentials_of(exchange: Exchange) -> set[str]:
    """Return the longer ones of the values that are hidden, since a source may quote them in its answer."""
    words = {word for value in _values_of(exchange) for word in _words(value)}
    return {word for word in words if len(word) >= _LONG_CHARACTERS}


def _query(query: str) -> str:
    return "&".join(map(_pair, query.split("&")))


def _pair(pair: str) -> str:
    # Some servers take a semicolon for an ampersand.
    pieces = pair.split(";")
    for number, piece in enumerate(pieces):
        name, equals, _ = piece.partition("=")
        if equals and is_credential(unquote_plus(name)):
            return ";".join([*pieces[:number], f"{name}={MASK}"])
    return pair


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: MASK if is_credential(name) else _hidden(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_hidden(element) for element in value]
    return _query(value) if isinstance(value, str) else value


def _values_of(exchange: Exchange) -> Iterator[str]:
    parts = urlsplit(exchange.url)
    yield unquote(parts.username or "")
    yield unquote(parts.password or "")
    for name, value in (*exchange.headers, *parse_qsl(parts.query)):
        if is_credential(name):
            yield value
    try:
        yield from _values_in(json.loads(exchange.body or b"null"), is_hidden=False)
    except ValueError:
        return


def _values_in(value: Any, *, is_hidden: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _values_in(member, is_hidden=is_hidden or is_credential(name))
    elif isinstance(value, list):
        for element in value:
            yield from _values_in(element, is_hidden=is_hidden)
    elif is_hidden and isinstance(value, str):
        yield value


def _words(value: str) -> Iterator[str]:
    """Yield a value, what follows the scheme in it, and the values of cookies."""
    yield value
    yield value.rpartition(" ")[2]
    for cookie in value.split(";"):
        yield cookie.partition("=")[2]
