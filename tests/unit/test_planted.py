"""The search for planted secrets finds them: else a test that finds none would show nothing."""

import base64
from urllib.parse import quote

import pytest

from planted import PART, forms, leaks, odd_secret, web_token

_SECRETS = {
    "odd": odd_secret("odd"),
    "ascii": odd_secret("ascii", is_ascii=True),
    "long": odd_secret("long", 600),
    "short": "Zq7~",
    "web token": web_token("web"),
}


@pytest.mark.parametrize("name", _SECRETS)
def test_a_secret_is_found_in_each_form(name: str) -> None:
    planted = {form: f"before {text} behind" for form, text in forms(_SECRETS[name]) if _is_searched(form, text)}
    missed = [form for form, text in planted.items() if not leaks({name: _SECRETS[name]}, {"line": text})]
    assert (missed, len(planted) > 10) == ([], True)


def _is_searched(form: str, text: str) -> bool:
    return len(text) >= PART or not form.startswith("base64")


@pytest.mark.parametrize("name", ["odd", "ascii", "long", "web token"])
def test_a_part_of_a_secret_is_found_in_each_form(name: str) -> None:
    parts = {form: text[len(text) // 2 :][:PART] for form, text in forms(_SECRETS[name])}
    assert [form for form, part in parts.items() if not leaks({name: _SECRETS[name]}, {"line": f"({part})"})] == []


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
def test_a_secret_is_found_within_base64(before: str) -> None:
    coded = base64.b64encode(f"{before}{_SECRETS['odd']} behind".encode()).decode()
    assert {what[:13] for what in leaks(_SECRETS, {"line": coded})} == {"odd as base64"}


def test_it_is_told_what_is_found_where() -> None:
    text = f"a {_SECRETS['odd']} b {quote(_SECRETS['short'])}"
    found = leaks({"odd": _SECRETS["odd"], "short": "Zq7~"}, {"one": "nothing", "other": text})
    assert {what.partition(" as ")[0] for what in found} == {"odd", "short"}
    assert {what.rpartition(" in ")[2] for what in found} == {"other"}


def test_nothing_is_found_where_nothing_is() -> None:
    assert (
        leaks(_SECRETS, {"one": "An innocent line, ******** in it.", "other": base64.b64encode(b"x" * 99).decode()})
        == set()
    )


def test_secrets_of_different_places_have_no_part_in_common() -> None:
    assert leaks({"odd": odd_secret("odd")}, {"other": odd_secret("other", 600)}) == set()
