"""Secrets of odd characters to plant, and the search for any part of them, in every form, in whatever can be seen."""

import base64
import html
import json
import random
import re
import string
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

# A part of a secret of this length is seen.
PART = 8
_ODD_ASCII = "\"\\%+/=&'<;,:|~"
_ODD = _ODD_ASCII + "ä日本"
_LETTERS = "".join(letter for letter in string.ascii_letters if letter not in string.hexdigits)


def odd_secret(name: str, length: int = 64, *, is_ascii: bool = False) -> str:
    """Return a secret for a place, the same at each run, with characters that coders treat in a way of their own."""
    chance = random.Random(name)
    odd = _ODD_ASCII if is_ascii else _ODD
    # Few odd ones in a row, or a part of it could stand anywhere by chance; behind % nothing that would be a code.
    parts = ("".join(chance.choices(_LETTERS, k=3)) + sign for sign in odd * length)
    return "".join(parts)[:length]


def web_token(name: str) -> str:
    """Return what looks like an access token of Keycloak (RFC 7519)."""
    parts = ({"alg": "RS256", "typ": "JWT"}, {"sub": odd_secret(name)}, {"signature": odd_secret(f"{name}'s", 200)})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def forms(secret: str) -> Iterator[tuple[str, str]]:
    """Yield every form of a secret that is looked for, behind its name."""
    raw = secret.encode()
    yield "raw", secret
    # As what makes no difference between small and capital letters could leave it.
    yield "small letters", secret.lower()
    yield "repr", repr(secret)[1:-1]
    yield "repr of bytes", repr(raw)[2:-1]
    yield "JSON", json.dumps(secret)[1:-1]
    yield "JSON in UTF-8", json.dumps(secret, ensure_ascii=False)[1:-1]
    yield "JSON twice", json.dumps(json.dumps(secret)[1:-1])[1:-1]
    yield "HTML", html.escape(secret)
    for name, form in (("percent", quote(secret, safe="")), ("form", quote_plus(secret)), ("path", quote(secret))):
        yield name, form
        yield f"{name}, small letters", re.sub("%..", lambda code: code[0].lower(), form)
        yield f"{name}, twice", quote(form, safe="")
    for offset in range(3):
        yield f"base64 at {offset}", _inner_base64(raw, offset)
        yield f"base64url at {offset}", _inner_base64(raw, offset).translate(str.maketrans("+/", "-_"))


def leaks(secrets: Mapping[str, str], surfaces: Mapping[str, str]) -> set[str]:
    """Return which secret is found in which form on which surface, in part or whole."""
    wanted = {part: f"{name} as {form}" for name, secret in secrets.items() for form, part in _parts(secret)}
    short = {part: what for part, what in wanted.items() if len(part) < PART}
    found = set()
    for surface, text in surfaces.items():
        windows = (text[start : start + PART] for start in range(len(text) - PART + 1))
        found |= {f"{wanted[window]} in {surface}" for window in windows if window in wanted}
        found |= {f"{what} in {surface}" for part, what in short.items() if part in text}
    return found


def _parts(secret: str) -> Iterator[tuple[str, str]]:
    for name, form in forms(secret):
        # The base64 of a few characters could be found anywhere.
        if len(form) < PART and not name.startswith("base64"):
            yield name, form
        for start in range(len(form) - PART + 1):
            yield name, form[start : start + PART]


def _inner_base64(raw: bytes, offset: int) -> str:
    """Return the characters that are the secret's alone where it begins at an offset among three bytes."""
    first, end = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
    return base64.b64encode(bytes(offset) + raw).decode()[first:end]
