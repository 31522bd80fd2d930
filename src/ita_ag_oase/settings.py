"""Every environment variable the agent knows: its default, unit and rule (protocol section 2.1).

A field's name in upper case is the variable's name. `load` is the only reader of the environment.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ita_ag_oase.errors import ConfigError
from ita_ag_oase.model import login_of, secrets_in
from ita_ag_oase.text import Text, verbatim

_IDENTITY = re.compile(r"[a-zA-Z0-9_-]{1,36}")
_HOST = re.compile(r"[\w.:-]+")
_FILE_NAME_BYTES = 200
_DAY_SECONDS = 86_400


class Adjustment(NamedTuple):
    """A value that was out of range and what is used instead."""

    variable: str
    given: int
    used: int


def _url(value: str) -> str:
    parts = _parts(value.strip())
    if parts is None:
        raise ValueError(Text("is no URL; write one such as http://platform-auth:8000"))
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError(Text("must hold neither a user nor a query; write scheme, host, port and path only"))
    return value.strip().rstrip("/")


def _proxy(value: str | None) -> str | None:
    if value is None:
        return None
    text = value.strip()
    if _parts(text if "://" in text else f"http://{text}") is None:
        raise ValueError(Text("is no URL of an HTTP proxy; write one such as http://proxy:8080"))
    return text


def _parts(url: str) -> SplitResult | None:
    """Return the parts of an HTTP URL, or None for what is none. No error tells of a password in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    is_url = parts.scheme in ("http", "https") and _HOST.fullmatch(host) and url.isprintable() and " " not in url
    return parts if is_url else None


def _identity(value: str) -> str:
    if not _IDENTITY.fullmatch(value):
        raise ValueError(Text("may hold letters, digits, - and _ only, 1 to 36 of them; write it as Exastro shows it"))
    return value


def _names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not names:
        raise ValueError(Text("names no setting; write the names of event collection settings, separated by commas"))
    return names


def _file_name(value: str) -> str:
    if "/" in value or not value.isprintable() or len(value.encode()) > _FILE_NAME_BYTES:
        raise ValueError(
            Text(
                "names a file of the store; write a name without / and line ends, of at most {limit} bytes",
                limit=_FILE_NAME_BYTES,
            )
        )
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        raise ValueError(
            Text("is {given!r}; write an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::", given=value)
        ) from None


def _log_level(value: Any) -> Any:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    level = str(value).strip().upper()
    if level not in levels:
        raise ValueError(Text("is {given!r}; write one of {levels}", given=value, levels=", ".join(levels)))
    return level


def _journal(value: Any) -> Any:
    journals = ("auto", "wal", "truncate")
    journal = str(value).strip().lower()
    if journal not in journals:
        raise ValueError(Text("is {given!r}; write one of {levels}", given=value, levels=", ".join(journals)))
    return journal


def _whole_number(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"[+-]?\d{1,100}", str(value).strip()):
        raise ValueError(Text("is {given!r}; write a whole number", given=value))
    return int(value)


def _switch(value: Any) -> Any:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(Text("is {given!r}; write true or false", given=value))


def _readable_file(value: Path | None) -> Path | None:
    if value is not None and (value.is_dir() or not os.access(value, os.R_OK)):
        raise ValueError(
            Text("names {file}, which is not there or cannot be read; write the path of a readable file", file=value)
        )
    return value


def _secret_file(value: Path | None) -> Path | None:
    _secret_in(_readable_file(value))
    return value


def _secret_in(file: Path | None) -> str | None:
    """Return the secret that a file holds, without white space around it; None for an empty one, or no file."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as err:
        problem = Text(
            "names {file}, which cannot be read as text ({error}); write the secret there in UTF-8",
            file=file,
            error=err.__class__.__name__,
        )
        raise ValueError(problem) from None


Number = Annotated[int, BeforeValidator(_whole_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Proxy = Annotated[str | None, AfterValidator(_proxy)]
ReadableFile = Annotated[Path | None, AfterValidator(_readable_file)]
SecretFile = Annotated[Path | None, AfterValidator(_secret_file)]

# Set by existing deployments, without meaning for this agent.
ACCEPTED_WITHOUT_EFFECT = (
    "PYTHONPATH",
    "SERVICE_NAME",
    "SQL_DELETE_PROC_UNIT_NUM",
    "SQL_INSERT_PROC_UNIT_NUM",
    "SQL_UPDATE_PROC_UNIT_NUM",
    "USER_ID",
)

_WAYS_TO_AUTHENTICATE = frozenset(
    {"exastro_refresh_token", "exastro_refresh_token_file", "exastro_username", "exastro_password"}
)

# Limits of values that are moved into their range rather than refused: the smallest and the greatest one.
RANGES: dict[str, tuple[int, int]] = {
    "execute_interval": (3, _DAY_SECONDS - 10),
    "iteration": (10, 120),
    "batch_max_events": (1, 100_000),
    "batch_max_bytes": (65_536, 268_435_456),
    "response_max_bytes": (65_536, 1_073_741_824),
    "storage_max_bytes": (16_777_216, 1_099_511_627_776),
    "event_id_retention_seconds": (3_600, 31_536_000),
    "status_port": (0, 65_535),
}

LANGUAGES = ("en", "ja")


class _Languages(BaseSettings):
    """In which language people are told what there is to tell."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    language: str = "en"
    default_language: str = "ja"

    @property
    def message_language(self) -> str:
        """One of LANGUAGES: LANGUAGE where it names one, else DEFAULT_LANGUAGE, else English."""
        named = (re.split("[^a-z]", given.strip().lower())[0] for given in (self.language, self.default_language))
        return next((code for code in named if code in LANGUAGES), LANGUAGES[0])


class Settings(_Languages):
    """The agent's configuration, checked. Secrets are left out of its repr."""

    exastro_url: Annotated[str, AfterValidator(_url)]
    exastro_organization_id: Annotated[str, AfterValidator(_identity)]
    exastro_workspace_id: Annotated[str, AfterValidator(_identity)]
    event_collection_settings_names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]

    exastro_refresh_token: str | None = Field(None, repr=False)
    exastro_refresh_token_file: SecretFile = None
    exastro_username: str | None = None
    exastro_password: str | None = Field(None, repr=False)
    exastro_password_file: SecretFile = Field(None, validate_default=True)

    exastro_tls_verify: Switch = True
    exastro_ca_file: ReadableFile = None
    source_tls_verify: Switch = True
    source_ca_file: ReadableFile = None
    http_proxy: Proxy = Field(None, repr=False)
    https_proxy: Proxy = Field(None, repr=False)
    no_proxy: str | None = None

    agent_name: Annotated[str, AfterValidator(_file_name)] = "agent-oase-01"
    agent_id: str | None = None
    hostname: str | None = None
    storagepath: Path = Path("/storage")

    execute_interval: Number = 5
    iteration: Number = 10
    batch_max_events: Number = 5_000
    batch_max_bytes: Number = 4_000_000
    response_max_bytes: Number = 33_554_432
    storage_max_bytes: Number = 1_073_741_824
    store_journal: Annotated[Literal["auto", "wal", "truncate"], BeforeValidator(_journal)] = "auto"
    event_id_retention_seconds: Number = 604_800

    status_address: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    status_port: Number = 9_879

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_log_level)] = "INFO"
    tz: str | None = None

    _adjustments: list[Adjustment] = PrivateAttr(default_factory=list)

    _refresh_token: str | None = PrivateAttr(None)
    _password: str | None = PrivateAttr(None)

    @field_validator("*", mode="before")
    @classmethod
    def _decodable(cls, value: Any) -> Any:
        # What the environment holds in another character set arrives as lone surrogates, which no JSON can carry.
        if isinstance(value, str) and value != value.encode(errors="replace").decode():
            raise ValueError(Text("is not written in UTF-8; write it so"))
        return value

    @field_validator("exastro_password_file")
    @classmethod
    def _one_way_to_authenticate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        given = info.data
        if not given.keys() >= _WAYS_TO_AUTHENTICATE:
            # Told already: what is missing here is wrong.
            return value
        has_token = _secret_of(given["exastro_refresh_token_file"], given["exastro_refresh_token"])
        has_password = given["exastro_username"] and _secret_of(value, given["exastro_password"])
        if not has_token and not has_password:
            raise PydanticCustomError("authentication", "none")
        return value

    @validate_model(mode="after")
    def _read_secrets(self) -> Self:
        # A line end behind it would be sent, too; no token holds white space.
        token = _secret_of(self.exastro_refresh_token_file, self.exastro_refresh_token)
        self._refresh_token = token.strip() if token else None
        self._password = _secret_of(self.exastro_password_file, self.exastro_password)
        return self

    @validate_model(mode="after")
    def _move_into_range(self) -> Self:
        moved: dict[str, int] = {}
        for name, (smallest, greatest) in RANGES.items():
            moved[name] = min(max(getattr(self, name), smallest), greatest)
        if moved["execute_interval"] * moved["iteration"] >= _DAY_SECONDS:
            moved["iteration"] = _DAY_SECONDS // (moved["execute_interval"] + 10)
        for name, used in moved.items():
            given = getattr(self, name)
            if given != used:
                self._adjustments.append(Adjustment(name.upper(), given, used))
                # The model is frozen for everyone but this validator, which is still making it.
                self.__dict__[name] = used
        return self

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """The values that were moved into their range."""
        return tuple(self._adjustments)

    @property
    def agent_identity(self) -> str:
        """The `agent.name` of posts: AGENT_ID, else HOSTNAME, else AGENT_NAME."""
        return self.agent_id or self.hostname or self.agent_name

    @property
    def refresh_token(self) -> str | None:
        """The refresh token, from its file where one is named."""
        return self._refresh_token

    @property
    def password(self) -> str | None:
        """The password, from its file where one is named."""
        return self._password

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        own = tuple(secret for secret in (self.refresh_token, self.password) if secret)
        login = login_of(self.exastro_username, self.password)
        return (*own, *login, *secrets_in(self.http_proxy), *secrets_in(self.https_proxy))

    @property
    def store_path(self) -> Path:
        """The SQLite file of this agent (protocol section 2.2, with a suffix that the stock agent's file lacks)."""
        return (
            self.storagepath
            / self.exastro_organization_id
            / self.exastro_workspace_id
            / "sqlite"
            / f"ag_oase_{self.agent_name}.sqlite3"
        )

    @property
    def stock_store_path(self) -> Path:
        """The stock agent's file, which lies beside ours (protocol section 2.2)."""
        return self.store_path.with_suffix("")

    @property
    def settings_file(self) -> Path:
        """The file that users delete to have changed settings fetched at once (protocol section 2.2)."""
        folder = Path("/tmp") / self.exastro_organization_id / self.exastro_workspace_id  # noqa: S108 - the contract
        return folder / f"ag_oase_{self.agent_name}" / "event_collection_settings.json"


def _secret_of(file: Path | None, value: str | None) -> str | None:
    in_file = _secret_in(file)
    if in_file or value is None:
        return in_file
    # A secret that is white space alone came out of a file that was empty, too.
    return value if value.strip() else None


def load(**overrides: Any) -> Settings:
    """Return the configuration from the environment and the .env file (ENVFILEPATH, else `.env` in the working folder).

    `overrides` stand before the environment, by field name. Raises ConfigError with every mistake at once.
    """
    env_file = _env_file()
    try:
        return Settings(_env_file=env_file, _env_file_encoding="utf-8-sig", **overrides)
    except ValidationError as err:
        raise ConfigError([_problem(details) for details in err.errors()]) from None
    except (OSError, UnicodeDecodeError) as err:
        problem = Text(
            "names {file}, which cannot be read as text ({error}); write it in UTF-8",
            file=env_file,
            error=err.__class__.__name__,
        )
        raise ConfigError([("ENVFILEPATH", problem)]) from None


def find_language() -> str:
    """Return the language to tell people in, one of LANGUAGES, also where the rest of the configuration is wrong."""
    try:
        return _Languages(_env_file=_env_file(), _env_file_encoding="utf-8-sig").message_language
    except (ValidationError, OSError, UnicodeDecodeError):
        return LANGUAGES[0]


def hand_on_language(language: str) -> None:
    """Have what goes by gettext, such as argparse, speak a language: it knows of none but by this variable."""
    os.environ["LANGUAGE"] = language


def wants_colours() -> bool:
    """Whether a terminal may show colours, which NO_COLOR denies (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def _env_file() -> str:
    return os.environ.get("ENVFILEPATH") or ".env"


def _problem(details: Any) -> tuple[str, Text]:
    variable = str(details["loc"][0]).upper() if details["loc"] else "configuration"
    if details["type"] == "missing":
        return variable, Text("is missing; {what_to_do}", what_to_do=_MISSING.get(variable, Text("it is required")))
    if details["type"] == "authentication":
        return "EXASTRO_REFRESH_TOKEN", _NO_WAY_TO_AUTHENTICATE
    err = details.get("ctx", {}).get("error")
    return variable, err.args[0] if isinstance(err, ValueError) else verbatim(details["msg"])


_NO_WAY_TO_AUTHENTICATE = Text(
    "is missing or its file is empty, and no other way to authenticate is given; write it (or "
    "EXASTRO_REFRESH_TOKEN_FILE), or EXASTRO_USERNAME and EXASTRO_PASSWORD (or EXASTRO_PASSWORD_FILE)"
)


_MISSING = {
    "EXASTRO_URL": Text("write the URL of Exastro, such as http://platform-auth:8000"),
    "EXASTRO_ORGANIZATION_ID": Text("write the id of the organization as Exastro shows it"),
    "EXASTRO_WORKSPACE_ID": Text("write the id of the workspace as Exastro shows it"),
    "EVENT_COLLECTION_SETTINGS_NAMES": Text("write the names of event collection settings, separated by commas"),
}
