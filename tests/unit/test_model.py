"""What of a setting is secret."""

from dataclasses import replace

import pytest

from examples import SETTING
from ita_ag_oase.model import login_of, secrets_in


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (None, ()),
        ("http://proxy.test:8080/a@b", ()),
        ("http://me:p%40ss@proxy.test", ("p@ss", "me:p@ss")),
        ("me:p@proxy.test:8080", ("p", "me:p")),
        ("http://:p@proxy.test", ("p", ":p")),
        ("http://t%2Bken@source.test", ("t+ken",)),
        ("http://[me:p@proxy.test", ()),
    ],
    ids=["none", "no user", "user and password", "no scheme", "password alone", "user alone", "no URL"],
)
def test_what_is_secret_in_a_url_is_in_its_user_part(url: str | None, secrets: tuple[str, ...]) -> None:
    assert secrets_in(url) == secrets


@pytest.mark.parametrize(
    ("username", "password", "login"),
    [("me", "p", ("me:p",)), (None, "p", (":p",)), ("me", None, ()), ("me", "", ())],
    ids=["both", "password alone", "none", "empty"],
)
def test_a_login_is_secret_where_there_is_a_password(
    username: str | None, password: str | None, login: tuple[str, ...]
) -> None:
    assert login_of(username, password) == login


_PLANTED = replace(
    SETTING,
    url="http://me:secret-1@source.test/?key=secret-2",
    request_header='{"X-Api-Key": "secret-3"}',
    parameter='{"auth": "secret-4"}',
    proxy="http://you:secret-5@proxy.test",
    auth_token="secret-6",
    username="us",
    password="secret-7",
    secret_access_key="secret-8",
    row={"AUTH_TOKEN": "secret-6"},
)


def test_secrets_of_a_setting_are_its_secret_columns_its_logins_and_those_in_its_urls() -> None:
    assert set(_PLANTED.secrets) == {
        "secret-6",
        "secret-7",
        "secret-8",
        "us:secret-7",
        "secret-5",
        "you:secret-5",
        "secret-1",
        "me:secret-1",
    }


def test_no_secret_is_in_the_repr_of_a_setting() -> None:
    assert "secret" not in repr(_PLANTED).replace("secret_", "")
