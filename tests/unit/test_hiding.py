"""What is shown of a request: everything but what could be a credential."""

import pytest

from ita_ag_oase.commands import hiding
from ita_ag_oase.model import Exchange
from ita_ag_oase.observability.logs import MASK


def _exchange(url: str = "http://source.test/", body: bytes = b"", **headers: str) -> Exchange:
    return Exchange("GET", url, tuple(headers.items()), body, 200, None)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "X-Api-Key",
        "apikey",
        "key",
        "access_token",
        "X-Auth",
        "auth",
        "passwd",
        "password",
        "PWD",
        "client_secret",
        "sessionid",
        "sig",
        "X-Amz-Signature",
        "api-key",
        "private_key",
        "privateKey",
        "x-functions-key",
        "api_key_v2",
        "pass",
        "passphrase",
        "X-JWT",
        "sid",
        "x-sig-v1",
        "x-hub-hmac",
        "bearer",
    ],
)
def test_names_of_credentials_are_known(name: str) -> None:
    assert hiding.is_credential(name)


@pytest.mark.parametrize(
    "name",
    [
        "author",
        "authors",
        "author_id",
        "host",
        "keyword",
        "key_",
        "sortfield",
        "assigned",
        "side",
        "bypass",
        "compass",
        "user",
        "monkey",
        "x-ms-date",
    ],
)
def test_other_names_are_not_taken_for_them(name: str) -> None:
    assert not hiding.is_credential(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://source.test/a?b=c&d", "http://source.test/a?b=c&d"),
        ("http://me:mine@source.test:81/a", f"http://{MASK}@source.test:81/a"),
        (
            "http://source.test/a?token=x%20y&page=1&api_key=z#part",
            f"http://source.test/a?token={MASK}&page=1&api_key={MASK}",
        ),
        ("http://source.test/?token", "http://source.test/?token"),
        ("http://source.test/?page=1;%74oken=a=b;c&sid=d", f"http://source.test/?page=1;%74oken={MASK}&sid={MASK}"),
        ("http://source.test/there#access_token=x", "http://source.test/there"),
    ],
    ids=["nothing", "user", "query", "name alone", "query with semicolons", "fragment"],
)
def test_a_url_is_shown_without_its_user_and_credentials(url: str, shown: str) -> None:
    assert hiding.url_of(_exchange(url)) == shown


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", None),
        (b'{"auth": "x", "params": [{"password": {"a": 1}}, 2]}', {"auth": MASK, "params": [{"password": MASK}, 2]}),
        (b'"text"', "text"),
        (b'["page=1&token=x"]', [f"page=1&token={MASK}"]),
        (b"no \xff JSON", "no \ufffd JSON"),
    ],
    ids=["empty", "object", "text", "form", "no JSON"],
)
def test_a_body_is_shown_without_credentials(body: bytes, shown: object) -> None:
    assert hiding.body_of(_exchange(body=body)) == shown


def test_headers_are_shown_in_their_order() -> None:
    assert hiding.headers_of(_exchange(host="a", authorization="Basic x", accept="b")) == [
        ("host", "a"),
        ("authorization", MASK),
        ("accept", "b"),
    ]


def test_what_is_hidden_is_known_so_that_an_answer_cannot_show_it() -> None:
    exchange = _exchange(
        "http://me:password-1@source.test/?page=number-1&token=query%2Btoken",
        b'{"auth": ["body-token", 1, {"a": "within-token"}], "other": "shown-text"}',
        authorization="Bearer header-token",
        cookie="a=1; b=cookie-value",
        accept="application/json",
    )
    assert hiding.credentials_of(exchange) == {
        "password-1",
        "query+token",
        "body-token",
        "within-token",
        "Bearer header-token",
        "header-token",
        "a=1; b=cookie-value",
        "b=cookie-value",
        "cookie-value",
    }


@pytest.mark.parametrize("body", [b"", b"no \xff JSON"], ids=["empty", "no JSON"])
def test_a_body_without_names_has_no_credentials(body: bytes) -> None:
    assert hiding.credentials_of(_exchange(body=body)) == set()
