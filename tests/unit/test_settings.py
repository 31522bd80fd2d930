"""The configuration: every rule of protocol section 2.1, and what a user's environment may hold instead."""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, FrozenInstanceError, asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from pydantic_core import PydanticUndefined

from ita_ag_oase import clock
from ita_ag_oase.environment import _RULES, Environment, find_language, load
from ita_ag_oase.errors import ConfigError, Reason
from ita_ag_oase.settings import (
    ACCEPTED_WITHOUT_EFFECT,
    RANGES,
    VARIABLES,
    Adjustment,
    Settings,
    Variables,
    wants_colours,
)

REQUIRED = {
    "EXASTRO_URL": "http://platform-auth:8000",
    "EXASTRO_ORGANIZATION_ID": "org",
    "EXASTRO_WORKSPACE_ID": "ws",
    "EVENT_COLLECTION_SETTINGS_NAMES": "n1",
    "EXASTRO_REFRESH_TOKEN": "token-of-the-test",
}
UNREADABLE_FILE = "is not there or cannot be read; write the path of a readable file"
NO_PROXY_URL = "is no URL of an HTTP proxy; write one such as http://proxy:8080"
NO_URL = "is no URL; write one such as http://platform-auth:8000"
NO_WAY = (
    "EXASTRO_REFRESH_TOKEN",
    (
        "is missing or its file is empty, and no other way to authenticate is given; write it (or "
        "EXASTRO_REFRESH_TOKEN_FILE), or EXASTRO_USERNAME and EXASTRO_PASSWORD (or EXASTRO_PASSWORD_FILE)"
    ),
)

Load = Callable[..., Settings]


@pytest.fixture
def load_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Return a loader for an environment of the required variables and those given; None takes one away."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower() in VARIABLES or name == "ENVFILEPATH":
            monkeypatch.delenv(name)

    def load_with(given: Mapping[str, str | None] | None = None) -> Settings:
        for name, value in {**REQUIRED, **(given or {})}.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return load()

    return load_with


def _problems(load_with: Load, given: Mapping[str, str | None]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_with(given)
    assert caught.value.reason is Reason.CONFIGURATION
    return [(variable, str(what_to_do)) for variable, what_to_do in caught.value.problems]


def test_the_smallest_configuration_has_the_documented_defaults(load_with: Load) -> None:
    settings = load_with()
    assert asdict(settings) == {
        "exastro_url": "http://platform-auth:8000",
        "exastro_organization_id": "org",
        "exastro_workspace_id": "ws",
        "event_collection_settings_names": ("n1",),
        "exastro_refresh_token": "token-of-the-test",
        "exastro_refresh_token_file": None,
        "exastro_username": None,
        "exastro_password": None,
        "exastro_password_file": None,
        "exastro_tls_verify": True,
        "exastro_ca_file": None,
        "source_tls_verify": True,
        "source_ca_file": None,
        "http_proxy": None,
        "https_proxy": None,
        "no_proxy": None,
        "agent_name": "agent-oase-01",
        "agent_id": None,
        "hostname": None,
        "storagepath": Path("/storage"),
        "execute_interval": 5,
        "iteration": 10,
        "batch_max_events": 5_000,
        "batch_max_bytes": 4_000_000,
        "response_max_bytes": 33_554_432,
        "storage_max_bytes": 1_073_741_824,
        "store_journal": "auto",
        "event_id_retention_seconds": 604_800,
        "status_address": "127.0.0.1",
        "status_port": 9_879,
        "log_level": "INFO",
        "language": "en",
        "default_language": "ja",
        "tz": None,
        "leader_election": "off",
        "lease_name": None,
        "lease_credentials": Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        "lease_namespace": None,
        "pod_name": None,
        "lease_retry_seconds": 2.0,
        "lease_renew_seconds": 10.0,
        "lease_seconds": 15,
        "kubernetes_service_host": None,
        "kubernetes_service_port": "443",
        "adjustments": (),
    }


def test_every_variable_is_read_with_the_type_and_default_of_the_settings() -> None:
    read = {name: (field.annotation, field.get_default()) for name, field in Environment.model_fields.items()}
    kept = {
        field.name: (field.type, PydanticUndefined if field.default is MISSING else field.default)
        for field in fields(Variables)
    }
    kept["log_level"] = (Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], "INFO")
    kept["leader_election"] = (Literal["off", "lease"], "off")
    kept["store_journal"] = (Literal["auto", "wal", "truncate"], "auto")
    assert read == kept


@pytest.mark.parametrize("name", [*RANGES, *_RULES])
def test_every_rule_is_about_a_variable(name: str) -> None:
    assert name in VARIABLES


def test_files_are_where_the_protocol_has_them(load_with: Load) -> None:
    settings = load_with({"STORAGEPATH": "/data", "AGENT_NAME": "Agent_1"})
    assert settings.store_path == Path("/data/org/ws/sqlite/ag_oase_Agent_1.sqlite3")
    assert settings.settings_file == Path("/tmp/org/ws/ag_oase_Agent_1/event_collection_settings.json")


def test_every_required_variable_that_is_missing_is_named_at_once(load_with: Load) -> None:
    assert _problems(load_with, dict.fromkeys(REQUIRED)) == [
        ("EXASTRO_URL", "is missing; write the URL of Exastro, such as http://platform-auth:8000"),
        ("EXASTRO_ORGANIZATION_ID", "is missing; write the id of the organization as Exastro shows it"),
        ("EXASTRO_WORKSPACE_ID", "is missing; write the id of the workspace as Exastro shows it"),
        (
            "EVENT_COLLECTION_SETTINGS_NAMES",
            "is missing; write the names of event collection settings, separated by commas",
        ),
        NO_WAY,
    ]


def test_empty_text_counts_as_unset(load_with: Load) -> None:
    empty = dict.fromkeys(map(str.upper, VARIABLES), "")
    unset = load_with()
    assert load_with({**empty, **REQUIRED}) == unset
    problems = _problems(load_with, dict.fromkeys(REQUIRED, ""))
    assert [variable for variable, _ in problems] == list(REQUIRED)


def test_all_mistakes_are_told_at_once_each_with_its_variable(load_with: Load) -> None:
    wrong = {
        "EXASTRO_URL": "platform-auth:8000",
        "EXASTRO_ORGANIZATION_ID": "my org",
        "EXASTRO_WORKSPACE_ID": "w" * 37,
        "EVENT_COLLECTION_SETTINGS_NAMES": " , ,",
        "EXASTRO_REFRESH_TOKEN_FILE": "/nowhere/token",
        "EXASTRO_PASSWORD_FILE": "/nowhere/password",
        "EXASTRO_TLS_VERIFY": "maybe",
        "EXASTRO_CA_FILE": "/nowhere/ca.pem",
        "SOURCE_TLS_VERIFY": "2",
        "SOURCE_CA_FILE": "/nowhere",
        "HTTP_PROXY": "socks5://proxy:1080",
        "HTTPS_PROXY": "http://",
        "AGENT_NAME": "a/b",
        "EXECUTE_INTERVAL": "5.0",
        "ITERATION": "ten",
        "BATCH_MAX_EVENTS": "1e3",
        "LOG_LEVEL": "LOUD|QUIET",
    }
    identity = "may hold letters, digits, - and _ only, 1 to 36 of them; write it as Exastro shows it"
    assert _problems(load_with, wrong) == [
        ("EXASTRO_URL", NO_URL),
        ("EXASTRO_ORGANIZATION_ID", identity),
        ("EXASTRO_WORKSPACE_ID", identity),
        (
            "EVENT_COLLECTION_SETTINGS_NAMES",
            "names no setting; write the names of event collection settings, separated by commas",
        ),
        ("EXASTRO_REFRESH_TOKEN_FILE", f"names /nowhere/token, which {UNREADABLE_FILE}"),
        ("EXASTRO_PASSWORD_FILE", f"names /nowhere/password, which {UNREADABLE_FILE}"),
        ("EXASTRO_TLS_VERIFY", "is 'maybe'; write true or false"),
        ("EXASTRO_CA_FILE", f"names /nowhere/ca.pem, which {UNREADABLE_FILE}"),
        ("SOURCE_TLS_VERIFY", "is '2'; write true or false"),
        ("SOURCE_CA_FILE", f"names /nowhere, which {UNREADABLE_FILE}"),
        ("HTTP_PROXY", NO_PROXY_URL),
        ("HTTPS_PROXY", NO_PROXY_URL),
        ("AGENT_NAME", "names a file of the store; write a name without / and line ends, of at most 200 bytes"),
        ("EXECUTE_INTERVAL", "is '5.0'; write a whole number"),
        ("ITERATION", "is 'ten'; write a whole number"),
        ("BATCH_MAX_EVENTS", "is '1e3'; write a whole number"),
        ("LOG_LEVEL", "is 'LOUD|QUIET'; write one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ]


def test_the_error_names_variable_and_remedy_in_one_line(load_with: Load) -> None:
    with pytest.raises(ConfigError, match=rf"^EXASTRO_URL: {NO_URL}$"):
        load_with({"EXASTRO_URL": "x"})


@pytest.mark.parametrize(
    ("given", "used"),
    [
        pytest.param("http://h", "http://h", id="plain"),
        pytest.param("https://h:8443/exastro/", "https://h:8443/exastro", id="path, slash at its end"),
        pytest.param(" http://h:80\n", "http://h:80", id="white space around"),
        pytest.param("HTTP://H", "HTTP://H", id="upper case"),
        pytest.param("http://[::1]:8000", "http://[::1]:8000", id="IPv6"),
        pytest.param("http://10.0.0.9:8000", "http://10.0.0.9:8000", id="IPv4"),
        pytest.param("http://監視.test", "http://監視.test", id="Japanese"),
        pytest.param("http://xn--jvr190m.test", "http://xn--jvr190m.test", id="as DNS has it"),
        pytest.param("http://3scale.test", "http://3scale.test", id="a digit first"),
        pytest.param("http://my_service.ns", "http://my_service.ns", id="underscore, as container networks have it"),
    ],
)
def test_a_url_of_exastro_is_taken(load_with: Load, given: str, used: str) -> None:
    assert load_with({"EXASTRO_URL": given}).exastro_url == used


@pytest.mark.parametrize(
    "given",
    [
        "h",
        "h:8000",
        "//h",
        "ftp://h",
        "http://",
        "http://:80",
        "http://h:99999",
        "http://h:port",
        "http://[::1",
        "http://a host",
        "http://h/a b",
        "http://h/\tx",
        # What looks like an address or a name in another script, and is none.
        "http://10.0.0.999",
        "http://-ü-.test",
        "http://xn--a.test",
        # An address whose characters change when they are normalized; Python's error quotes the password.
        "http://user:hidden\u2100@h",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(load_with: Load, given: str) -> None:
    assert _problems(load_with, {"EXASTRO_URL": given}) == [("EXASTRO_URL", NO_URL)]


@pytest.mark.parametrize(
    "given", ["http://u:p@h", "http://:p@h", "http://@h", "http://h?x=1", "http://h/#", "http://h?"]
)
def test_a_url_of_exastro_with_user_or_query_is_refused(load_with: Load, given: str) -> None:
    problem = "must hold neither a user nor a query; write scheme, host, port and path only"
    assert _problems(load_with, {"EXASTRO_URL": given}) == [("EXASTRO_URL", problem)]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        pytest.param("a", ("a",), id="one"),
        pytest.param(" a , b c ,, a,", ("a", "b c"), id="blanks around, blank within, empty, twice"),
        pytest.param("監視,監視2", ("監視", "監視2"), id="Japanese"),
        pytest.param('["a"]', ('["a"]',), id="no JSON"),
    ],
)
def test_names_are_separated_by_commas(load_with: Load, given: str, names: tuple[str, ...]) -> None:
    assert load_with({"EVENT_COLLECTION_SETTINGS_NAMES": given}).event_collection_settings_names == names


@pytest.mark.parametrize("given", ["org_1-A", "x", "0" * 36])
def test_ids_as_exastro_makes_them_are_taken(load_with: Load, given: str) -> None:
    settings = load_with({"EXASTRO_ORGANIZATION_ID": given, "EXASTRO_WORKSPACE_ID": given})
    assert (settings.exastro_organization_id, settings.exastro_workspace_id) == (given, given)


@pytest.mark.parametrize("given", ["a b", "a/b", "..", "é", "0" * 37, "a\n"])
def test_ids_that_would_change_a_path_are_refused(load_with: Load, given: str) -> None:
    problems = _problems(load_with, {"EXASTRO_ORGANIZATION_ID": given, "EXASTRO_WORKSPACE_ID": given})
    assert [variable for variable, _ in problems] == ["EXASTRO_ORGANIZATION_ID", "EXASTRO_WORKSPACE_ID"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a/b", id="slash"),
        pytest.param("a\nb", id="line end"),
        pytest.param("a\x7fb", id="control character"),
        pytest.param("n" * 201, id="too long"),
        pytest.param("監" * 67, id="too long in bytes"),
    ],
)
def test_an_agent_name_that_cannot_name_a_file_is_refused(load_with: Load, name: str) -> None:
    assert [variable for variable, _ in _problems(load_with, {"AGENT_NAME": name})] == ["AGENT_NAME"]


@pytest.mark.parametrize("name", ["n" * 200, "監視 1", "..", "Agent_1.2"])
def test_an_agent_name_that_is_taken_names_a_file(load_with: Load, tmp_path: Path, name: str) -> None:
    path = load_with({"AGENT_NAME": name, "STORAGEPATH": str(tmp_path)}).store_path
    path.parent.mkdir(parents=True)
    path.with_name(path.name + "-wal").touch()
    assert path.parent == tmp_path / "org" / "ws" / "sqlite"


@pytest.mark.parametrize(
    ("given", "identity"),
    [
        pytest.param({"AGENT_ID": "id", "HOSTNAME": "pod", "AGENT_NAME": "name"}, "id", id="AGENT_ID first"),
        pytest.param({"AGENT_ID": "", "HOSTNAME": "pod", "AGENT_NAME": "name"}, "pod", id="then HOSTNAME"),
        pytest.param({"HOSTNAME": "", "AGENT_NAME": "name"}, "name", id="then AGENT_NAME"),
        pytest.param({}, "agent-oase-01", id="then its default"),
    ],
)
def test_the_agent_calls_itself_what_changes_least(load_with: Load, given: dict[str, str], identity: str) -> None:
    assert load_with(given).agent_identity == identity


@pytest.mark.parametrize("variable", [name.upper() for name in RANGES])
def test_numbers_out_of_range_are_moved_to_the_limit_and_told(load_with: Load, variable: str) -> None:
    smallest, greatest = RANGES[variable.lower()]
    # An interval that is neither moved nor touched by the rule of the day.
    rest = {} if variable == "EXECUTE_INTERVAL" else {"EXECUTE_INTERVAL": "5"}
    low = load_with({**rest, variable: "-7"})
    assert getattr(low, variable.lower()) == smallest
    assert low.adjustments == (Adjustment(variable, -7, smallest),)
    high = load_with({**rest, variable: "9" * 25})
    assert getattr(high, variable.lower()) == greatest
    assert high.adjustments[0] == Adjustment(variable, int("9" * 25), greatest)


@pytest.mark.parametrize(
    ("interval", "iteration", "used"),
    [
        pytest.param(5, 500, (5, 120), id="the default of the published chart"),
        pytest.param(3, 10, (3, 10), id="smallest of both"),
        pytest.param(2, 9, (3, 10), id="below both"),
        pytest.param(719, 120, (719, 120), id="86,280 s are less than a day"),
        pytest.param(720, 120, (720, 118), id="exactly a day"),
        pytest.param(8_639, 10, (8_639, 10), id="86,390 s are less than a day"),
        pytest.param(8_640, 10, (8_640, 9), id="exactly a day, smallest iteration"),
        pytest.param(43_190, 10, (43_190, 2), id="half a day less ten seconds"),
        pytest.param(86_390, 10, (86_390, 1), id="the greatest interval"),
        pytest.param(86_391, 10, (86_390, 1), id="the quotient is 0"),
        pytest.param(1_000_000, 500, (86_390, 1), id="far beyond"),
    ],
)
def test_a_round_of_polls_never_reaches_a_day(
    load_with: Load, interval: int, iteration: int, used: tuple[int, int]
) -> None:
    settings = load_with({"EXECUTE_INTERVAL": str(interval), "ITERATION": str(iteration)})
    assert (settings.execute_interval, settings.iteration) == used
    given = {"EXECUTE_INTERVAL": interval, "ITERATION": iteration}
    assert settings.adjustments == tuple(
        Adjustment(name, given[name], value) for name, value in zip(given, used, strict=True) if given[name] != value
    )


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (given, used)
        for used, texts in {
            True: ("true", "True", "1", "YES", " on "),
            False: ("false", "FALSE", "0", "no", "off"),
        }.items()
        for given in texts
    ],
)
def test_switches_take_the_usual_words(load_with: Load, given: str, used: bool) -> None:
    settings = load_with({"EXASTRO_TLS_VERIFY": given, "SOURCE_TLS_VERIFY": given})
    assert (settings.exastro_tls_verify, settings.source_tls_verify) == (used, used)


@pytest.mark.parametrize(("given", "used"), [("debug", "DEBUG"), (" Warning ", "WARNING"), ("CRITICAL", "CRITICAL")])
def test_log_levels_may_be_written_in_any_case(load_with: Load, given: str, used: str) -> None:
    assert load_with({"LOG_LEVEL": given}).log_level == used


def test_what_existing_deployments_set_is_accepted(load_with: Load) -> None:
    without = load_with()
    assert load_with(dict.fromkeys(ACCEPTED_WITHOUT_EFFECT, "anything")) == without


def test_proxies_may_be_written_in_lower_case_and_without_scheme(load_with: Load) -> None:
    settings = load_with({"http_proxy": "proxy:3128", "https_proxy": "http://u:p@proxy:3128/", "no_proxy": "a,.b"})
    assert (settings.http_proxy, settings.https_proxy, settings.no_proxy) == (
        "proxy:3128",
        "http://u:p@proxy:3128/",
        "a,.b",
    )


@pytest.mark.parametrize(
    "value", ["socks5://u:hidden@h:1080", "ftp://u:hidden@h", "http://u:hidden@", "http://u:hid den@h", "u:hidden@h:x"]
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_used_is_told_at_start_without_its_password(
    load_with: Load, variable: str, value: str
) -> None:
    assert _problems(load_with, {variable: value}) == [(variable, NO_PROXY_URL)]


class TestAuthentication:
    """One of the two ways; secrets come from variables or from files."""

    @pytest.mark.parametrize(
        ("given", "secrets"),
        [
            pytest.param({"EXASTRO_REFRESH_TOKEN": "t"}, ("t", None), id="token"),
            pytest.param({"EXASTRO_REFRESH_TOKEN": " t\n"}, ("t", None), id="token with a line end behind"),
            pytest.param(
                {"EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD": " p "}, (None, " p "), id="password to the letter"
            ),
            pytest.param(
                {"EXASTRO_REFRESH_TOKEN": "t", "EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD": "p"}, ("t", "p"), id="both"
            ),
            pytest.param({"EXASTRO_REFRESH_TOKEN_FILE": "token"}, ("from-token", None), id="token file"),
            pytest.param(
                {"EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD_FILE": "password"},
                (None, "from-password"),
                id="password file",
            ),
            pytest.param(
                {"EXASTRO_REFRESH_TOKEN": "t", "EXASTRO_REFRESH_TOKEN_FILE": "token"},
                ("from-token", None),
                id="file first",
            ),
            pytest.param(
                {"EXASTRO_REFRESH_TOKEN": "t", "EXASTRO_REFRESH_TOKEN_FILE": "empty"},
                ("t", None),
                id="empty file is none",
            ),
            pytest.param(
                {"EXASTRO_REFRESH_TOKEN_FILE": "empty", "EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD_FILE": "password"},
                (None, "from-password"),
                id="empty token file, other way",
            ),
        ],
    )
    def test_a_way_is_found(
        self, load_with: Load, tmp_path: Path, given: dict[str, str], secrets: tuple[str | None, str | None]
    ) -> None:
        _write_files(tmp_path)
        settings = load_with({"EXASTRO_REFRESH_TOKEN": None, **given})
        assert (settings.refresh_token, settings.password) == secrets

    @pytest.mark.parametrize(
        "given",
        [
            pytest.param({}, id="nothing"),
            pytest.param({"EXASTRO_REFRESH_TOKEN": " \n"}, id="blank token"),
            pytest.param({"EXASTRO_USERNAME": "u"}, id="user alone"),
            pytest.param({"EXASTRO_PASSWORD": "p"}, id="password alone"),
            pytest.param({"EXASTRO_PASSWORD_FILE": "password"}, id="password file alone"),
            pytest.param({"EXASTRO_REFRESH_TOKEN_FILE": "empty"}, id="empty token file"),
            pytest.param({"EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD_FILE": "empty"}, id="empty password file"),
            pytest.param(
                {"EXASTRO_REFRESH_TOKEN_FILE": "empty", "EXASTRO_PASSWORD": "p"}, id="empty token file, no user"
            ),
        ],
    )
    def test_no_way_is_told(self, load_with: Load, tmp_path: Path, given: dict[str, str]) -> None:
        _write_files(tmp_path)
        assert _problems(load_with, {"EXASTRO_REFRESH_TOKEN": None, **given}) == [NO_WAY]

    def test_every_unusable_file_is_named_with_its_variable(self, load_with: Load, tmp_path: Path) -> None:
        _write_files(tmp_path)
        given = {"EXASTRO_REFRESH_TOKEN_FILE": "binary", "EXASTRO_PASSWORD_FILE": str(tmp_path), "EXASTRO_URL": "x"}
        assert _problems(load_with, given) == [
            ("EXASTRO_URL", NO_URL),
            (
                "EXASTRO_REFRESH_TOKEN_FILE",
                "names binary, which cannot be read as text (UnicodeDecodeError); write the secret there in UTF-8",
            ),
            ("EXASTRO_PASSWORD_FILE", f"names {tmp_path}, which {UNREADABLE_FILE}"),
        ]

    def test_secrets_stay_as_they_were_at_start(self, load_with: Load, tmp_path: Path) -> None:
        _write_files(tmp_path)
        settings = load_with({"EXASTRO_REFRESH_TOKEN_FILE": "token"})
        (tmp_path / "token").unlink()
        assert settings.refresh_token == "from-token"

    def test_no_secret_is_in_the_repr(self, load_with: Load, tmp_path: Path) -> None:
        _write_files(tmp_path)
        given = {
            "EXASTRO_REFRESH_TOKEN": "hidden-token",
            "EXASTRO_USERNAME": "u",
            "EXASTRO_PASSWORD": "hidden-password",
            "EXASTRO_REFRESH_TOKEN_FILE": "token",
            "EXASTRO_PASSWORD_FILE": "password",
            "HTTP_PROXY": "http://u:hidden-one@proxy:1",
            "HTTPS_PROXY": "http://u:hidden-other@proxy:1",
        }
        settings = load_with(given)
        shown = f"{settings!r} {settings!s}"
        assert settings.refresh_token == "from-token"
        assert "exastro_username='u'" in shown
        assert "hidden" not in shown
        assert "from-" not in shown

    def test_secrets_are_those_in_use_and_the_logins_made_of_them(self, load_with: Load) -> None:
        given = {
            "EXASTRO_REFRESH_TOKEN": "token",
            "EXASTRO_USERNAME": "u",
            "EXASTRO_PASSWORD": "pw",
            "HTTP_PROXY": "http://v:one@proxy:1",
            "HTTPS_PROXY": "w:other@proxy:1",
        }
        assert load_with(given).secrets == ("token", "pw", "u:pw", "one", "v:one", "other", "w:other")

    def test_no_secret_is_in_the_text_of_an_error(self, load_with: Load) -> None:
        given = {
            "EXASTRO_REFRESH_TOKEN": os.fsdecode(b"hidden-\xff"),
            "EXASTRO_PASSWORD": os.fsdecode(b"hidden-\xff"),
            "EXASTRO_USERNAME": "u",
            "EXASTRO_URL": "http://u:hidden@h",
            "HTTP_PROXY": "socks5://u:hidden@h",
        }
        with pytest.raises(ConfigError) as caught:
            load_with(given)
        assert [variable for variable, _ in caught.value.problems] == [
            "EXASTRO_URL",
            "EXASTRO_REFRESH_TOKEN",
            "EXASTRO_PASSWORD",
            "HTTP_PROXY",
        ]
        assert "hidden" not in str(caught.value)
        # Nor in what a traceback would show as its cause.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def _write_files(folder: Path) -> None:
    (folder / "token").write_text("\ufefffrom-token\r\n", encoding="utf-8")
    (folder / "password").write_text("from-password\n", encoding="utf-8")
    (folder / "empty").write_text(" \n", encoding="utf-8")
    (folder / "binary").write_bytes(b"\xff\xfehidden")


@pytest.mark.parametrize("variable", ["EVENT_COLLECTION_SETTINGS_NAMES", "AGENT_ID", "AGENT_NAME", "EXASTRO_USERNAME"])
def test_text_in_another_character_set_is_told_not_sent(load_with: Load, variable: str) -> None:
    given = {variable: os.fsdecode("監視".encode("euc-jp"))}
    assert _problems(load_with, given) == [(variable, "is not written in UTF-8; write it so")]


class TestEnvFile:
    """ENVFILEPATH names a .env file; the environment stands before it."""

    def test_the_file_in_the_working_folder_is_read(self, load_with: Load, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("AGENT_NAME='from file'\nITERATION=20\nTZ=\nUNKNOWN=1\n", encoding="utf-8")
        settings = load_with()
        assert (settings.agent_name, settings.iteration, settings.tz) == ("from file", 20, None)

    def test_the_named_file_is_read_instead(self, load_with: Load, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("AGENT_NAME=here\n", encoding="utf-8")
        (tmp_path / "other").write_text("\ufeffAGENT_NAME=there\r\n", encoding="utf-8")
        assert load_with({"ENVFILEPATH": str(tmp_path / "other")}).agent_name == "there"

    def test_the_environment_stands_before_the_file(self, load_with: Load, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("AGENT_NAME=file\nAGENT_ID=file\n", encoding="utf-8")
        settings = load_with({"AGENT_NAME": "environment", "AGENT_ID": ""})
        assert (settings.agent_name, settings.agent_id) == ("environment", "file")

    def test_required_variables_and_secrets_may_come_from_the_file(self, load_with: Load, tmp_path: Path) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in REQUIRED.items())
        (tmp_path / ".env").write_text(lines, encoding="utf-8")
        settings = load_with(dict.fromkeys(REQUIRED))
        assert (settings.exastro_url, settings.refresh_token) == ("http://platform-auth:8000", "token-of-the-test")

    def test_a_missing_file_is_no_mistake(self, load_with: Load) -> None:
        assert load_with({"ENVFILEPATH": "/nowhere/.env"}).agent_name == "agent-oase-01"

    @pytest.mark.parametrize("content", ["AGENT_NAME=監視\n".encode("utf-16"), "AGENT_NAME=監視\n".encode("euc-jp")])
    def test_a_file_in_another_character_set_is_told(self, load_with: Load, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "other").write_bytes(content)
        path = str(tmp_path / "other")
        problem = f"names {path}, which cannot be read as text (UnicodeDecodeError); write it in UTF-8"
        assert _problems(load_with, {"ENVFILEPATH": path}) == [("ENVFILEPATH", problem)]


@pytest.mark.parametrize(
    ("language", "default", "used"),
    [
        (None, None, "en"),
        ("en", "ja", "en"),
        ("ja", "en", "ja"),
        (" JA ", "en", "ja"),
        ("ja_JP.UTF-8", "en", "ja"),
        ("en_US:ja", "ja", "en"),
        ("fr", None, "ja"),
        ("fr", "en", "en"),
        ("fr", "de", "en"),
    ],
)
def test_messages_are_in_the_language_that_is_named(
    load_with: Load, language: str | None, default: str | None, used: str
) -> None:
    given = {"LANGUAGE": language, "DEFAULT_LANGUAGE": default}
    assert (load_with(given).message_language, find_language()) == (used, used)


def test_the_language_is_known_also_where_the_rest_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "example.env").write_text("LANGUAGE=ja\nEXASTRO_URL=nothing\n", encoding="utf-8")
    monkeypatch.delenv("LANGUAGE", raising=False)
    monkeypatch.setenv("ENVFILEPATH", str(tmp_path / "example.env"))
    assert find_language() == "ja"
    monkeypatch.setenv("ENVFILEPATH", str(tmp_path))
    assert find_language() == "en"


@pytest.mark.parametrize(("given", "wanted"), [(None, True), ("", True), ("1", False), ("0", False)])
def test_no_colours_are_wanted_where_no_color_says_so(
    monkeypatch: pytest.MonkeyPatch, given: str | None, wanted: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if given is not None:
        monkeypatch.setenv("NO_COLOR", given)
    assert wants_colours() is wanted


@pytest.mark.parametrize(("given", "used"), [("0.0.0.0", "0.0.0.0"), (" ::1 ", "::1")])
def test_an_address_is_taken(load_with: Load, given: str, used: str) -> None:
    assert load_with({"STATUS_ADDRESS": given}).status_address == used


def test_what_is_no_address_is_refused(load_with: Load) -> None:
    what_to_do = "is 'localhost:80'; write an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::"
    assert _problems(load_with, {"STATUS_ADDRESS": "localhost:80"}) == [("STATUS_ADDRESS", what_to_do)]


def test_overrides_stand_before_the_environment(load_with: Load) -> None:
    load_with({"AGENT_NAME": "environment"})
    assert load(agent_name="argument").agent_name == "argument"


def test_settings_cannot_be_changed(load_with: Load) -> None:
    settings = load_with()
    with pytest.raises(FrozenInstanceError):
        settings.agent_name = "other"  # type: ignore[misc]  # that it is frozen is what is shown


@pytest.mark.parametrize(
    ("name", "known"),
    [
        pytest.param("Asia/Tokyo", True, id="usual form"),
        pytest.param(":Asia/Tokyo", True, id="colon before, as POSIX has it"),
        pytest.param("UTC", True, id="UTC"),
        pytest.param("JST-9", False, id="POSIX rule"),
        pytest.param("/etc/localtime", False, id="absolute path"),
        pytest.param("../../etc/passwd", False, id="path out of the data"),
        pytest.param("Asia", False, id="folder"),
        pytest.param("Mars/Olympus", False, id="unknown"),
        pytest.param("", False, id="empty"),
        pytest.param(None, False, id="unset"),
    ],
)
def test_time_zones_known_by_name_are_found(name: str | None, known: bool) -> None:
    assert clock.zone(name) == (ZoneInfo((name or "").removeprefix(":")) if known else None)


def test_local_time_is_aware_and_the_same_moment() -> None:
    tokyo = clock.local(1_700_000_000.5, ZoneInfo("Asia/Tokyo"))
    assert tokyo.isoformat() == "2023-11-15T07:13:20.500000+09:00"
    own = clock.local(1_700_000_000.5, None)
    assert isinstance(own.utcoffset(), timedelta)
    assert own.timestamp() == 1_700_000_000.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("JST-9", True),
        ("UTC0", True),
        ("CET-1CEST,M3.5.0,M10.5.0/3", True),
        ("<+0330>-3:30", True),
        ("Asia/Tokio", False),
        ("Tokyo", False),
        ("passw0rd", False),
    ],
)
def test_the_posix_form_of_a_time_zone_is_told_from_a_misspelt_name(name: str, expected: bool) -> None:
    assert clock.is_posix_zone(name) is expected


ELECTION = {
    "LEADER_ELECTION": "lease",
    "LEASE_NAME": "oase",
    "LEASE_NAMESPACE": "ns",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}
TIMES = (
    "which does not fit LEASE_RENEW_SECONDS={renew} and LEASE_RETRY_SECONDS={retry}; write times such as 15, 10 and 2: "
    "the second at least twice the third, and shorter than the first by that, the first at most 3600"
)


def test_an_election_needs_a_name_and_an_api_server(load_with: Load) -> None:
    settings = load_with({**ELECTION, "LEADER_ELECTION": " Lease "})
    assert (settings.has_election, settings.lease) == (True, "ns/oase")
    assert settings.kubernetes_url == "https://10.0.0.1:443"


@pytest.mark.parametrize(
    ("host", "url"),
    [("fd00::1", "https://[fd00::1]:6443"), ("kubernetes.default.svc", "https://kubernetes.default.svc:6443")],
)
def test_the_api_server_is_found_by_any_address(load_with: Load, host: str, url: str) -> None:
    settings = load_with({**ELECTION, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"})
    assert settings.kubernetes_url == url


def test_the_namespace_is_that_of_the_service_account_where_none_is_given(load_with: Load, tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("monitoring\n")
    given = {**ELECTION, "LEASE_NAMESPACE": None, "LEASE_CREDENTIALS": str(tmp_path)}
    assert load_with(given).lease == "monitoring/oase"


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("LEADER_ELECTION", "yes", "is 'yes'; write one of off, lease"),
        ("LEASE_NAME", None, "must name the Lease for LEADER_ELECTION=lease; write the name of one that there is"),
        ("LEASE_NAME", "a/b", "must name the Lease for LEADER_ELECTION=lease; write the name of one that there is"),
        ("LEASE_NAMESPACE", "../x", "is '../x', which names no namespace; write that of the Lease"),
        (
            "LEASE_NAMESPACE",
            None,
            "is missing, and /nowhere/namespace cannot be read; write the namespace of the Lease",
        ),
        (
            "KUBERNETES_SERVICE_HOST",
            None,
            (
                "is not set, as Kubernetes does in every pod; set LEADER_ELECTION=off outside of Kubernetes, where the "
                "lock on the store keeps a second agent away"
            ),
        ),
        ("KUBERNETES_SERVICE_PORT", "https", "is 'https'; write the number of the API server's port"),
        ("LEASE_RETRY_SECONDS", "2s", "is '2s'; write a number of seconds, such as 2 or 0.5"),
        ("LEASE_SECONDS", "1.5", "is '1.5'; write a whole number"),
        ("LEASE_SECONDS", "10", f"is 10, {TIMES.format(renew=10, retry=2)}"),
        ("LEASE_SECONDS", "3601", f"is 3601, {TIMES.format(renew=10, retry=2)}"),
    ],
)
def test_what_keeps_an_agent_from_an_election_is_told(
    load_with: Load, variable: str, value: str | None, problem: str
) -> None:
    given = {**ELECTION, "LEASE_CREDENTIALS": "/nowhere", variable: value}
    assert _problems(load_with, given) == [(variable, problem)]


@pytest.mark.parametrize(
    ("lease", "renew", "retry", "fits"),
    [
        ("15", "10", "2", True),
        ("12", "10", "2", True),
        ("11", "10", "2", False),
        ("15", "4", "2", True),
        ("15", "3.9", "2", False),
        ("1", "0.7", "0.25", True),
        ("1", "0.5", "0", False),
    ],
)
def test_the_times_of_a_lease_leave_room_for_each_other(
    load_with: Load, lease: str, renew: str, retry: str, fits: bool
) -> None:
    given = {**ELECTION, "LEASE_SECONDS": lease, "LEASE_RENEW_SECONDS": renew, "LEASE_RETRY_SECONDS": retry}
    if fits:
        settings = load_with(given)
        times = settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds
        assert times == (int(lease), float(renew), float(retry))
    else:
        problem = TIMES.format(renew=f"{float(renew):g}", retry=f"{float(retry):g}")
        assert _problems(load_with, given) == [("LEASE_SECONDS", f"is {lease}, {problem}")]


def test_without_an_election_its_variables_are_not_looked_at(load_with: Load) -> None:
    given = {"LEASE_NAME": "A B", "LEASE_SECONDS": "1", "LEASE_NAMESPACE": "/", "KUBERNETES_SERVICE_PORT": "tcp://x"}
    assert not load_with(given).has_election
