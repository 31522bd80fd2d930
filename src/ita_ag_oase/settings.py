"""Every environment variable the agent knows: its default, unit and rule (protocol section 2.1).

A field's name in upper case is the variable's name. `load` is the only reader of the environment.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

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
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ita_ag_oase.errors import ConfigError

_IDENTITY = re.compile(r"[a-zA-Z0-9_-]{1,36}")
_FILE_NAME_BYTES = 200
_DAY_SECONDS = 86_400


class Adjustment(NamedTuple):
    """A value that was out of range and what is used instead."""

    variable: str
    given: int
    used: int


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL; write one such as http://platform-auth:8000")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold neither a user nor a query; write scheme, host, port and path only")
    return value.rstrip("/")


def _identity(value: str) -> str:
    if not _IDENTITY.fullmatch(value):
        raise ValueError("may hold letters, digits, - and _ only, 1 to 36 of them; write it as Exastro shows it")
    return value


def _names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not names:
        raise ValueError("names no setting; write the names of event collection settings, separated by commas")
    return names


def _file_name(value: str) -> str:
    if "/" in value or not value.isprintable() or len(value.encode()) > _FILE_NAME_BYTES:
        raise ValueError(
            f"names a file of the store; write a name without / and line ends, of at most {_FILE_NAME_BYTES} bytes"
        )
    return value


def _log_level(value: Any) -> Any:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    level = str(value).strip().upper()
    if level not in levels:
        raise ValueError(f"is {value!r}; write one of {', '.join(levels)}")
    return level


def _whole_number(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"[+-]?\d{1,18}", str(value).strip()):
        raise ValueError(f"is {value!r}; write a whole number")
    return int(value)


def _switch(value: Any) -> Any:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"is {value!r}; write true or false")


def _readable_file(value: Path | None) -> Path | None:
    if value is not None and not os.access(value, os.R_OK):
        raise ValueError(f"names {value}, which is not there or cannot be read; write the path of a readable file")
    return value


Number = Annotated[int, BeforeValidator(_whole_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
ReadableFile = Annotated[Path | None, AfterValidator(_readable_file)]

# Set by existing deployments, without meaning for this agent.
ACCEPTED_WITHOUT_EFFECT = (
    "PYTHONPATH",
    "SERVICE_NAME",
    "SQL_DELETE_PROC_UNIT_NUM",
    "SQL_INSERT_PROC_UNIT_NUM",
    "SQL_UPDATE_PROC_UNIT_NUM",
    "USER_ID",
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
}


class Settings(BaseSettings):
    """The agent's configuration, checked. Secrets are left out of its repr."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    exastro_url: Annotated[str, AfterValidator(_url)]
    exastro_organization_id: Annotated[str, AfterValidator(_identity)]
    exastro_workspace_id: Annotated[str, AfterValidator(_identity)]
    event_collection_settings_names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]

    exastro_refresh_token: str | None = Field(None, repr=False)
    exastro_refresh_token_file: ReadableFile = None
    exastro_username: str | None = None
    exastro_password: str | None = Field(None, repr=False)
    exastro_password_file: ReadableFile = Field(None, validate_default=True)

    exastro_tls_verify: Switch = True
    exastro_ca_file: ReadableFile = None
    source_tls_verify: Switch = True
    source_ca_file: ReadableFile = None
    http_proxy: str | None = Field(None, repr=False)
    https_proxy: str | None = Field(None, repr=False)
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
    event_id_retention_seconds: Number = 604_800

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_log_level)] = "INFO"
    language: str | None = None
    default_language: str = "ja"
    tz: str | None = None

    _adjustments: list[Adjustment] = PrivateAttr(default_factory=list)

    @field_validator("exastro_password_file")
    @classmethod
    def _one_way_to_authenticate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        found = {name for name, given in info.data.items() if given} | ({"exastro_password_file"} if value else set())
        has_token = bool({"exastro_refresh_token", "exastro_refresh_token_file"} & found)
        has_password = bool({"exastro_password"} & found or value)
        tokens_failed = "exastro_refresh_token_file" not in info.data
        if not has_token and not tokens_failed and not ("exastro_username" in found and has_password):
            raise ValueError(
                "EXASTRO_REFRESH_TOKEN|no way to authenticate is given; write EXASTRO_REFRESH_TOKEN "
                "(or EXASTRO_REFRESH_TOKEN_FILE), or EXASTRO_USERNAME and EXASTRO_PASSWORD (or EXASTRO_PASSWORD_FILE)"
            )
        return value

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
        return _read_secret(self.exastro_refresh_token_file) or self.exastro_refresh_token

    @property
    def password(self) -> str | None:
        """The password, from its file where one is named."""
        return _read_secret(self.exastro_password_file) or self.exastro_password

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
    def settings_file(self) -> Path:
        """The file that users delete to have changed settings fetched at once (protocol section 2.2)."""
        folder = Path("/tmp") / self.exastro_organization_id / self.exastro_workspace_id  # noqa: S108 - the contract
        return folder / f"ag_oase_{self.agent_name}" / "event_collection_settings.json"


def _read_secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError([(str(path), f"cannot be read as a secret ({err.__class__.__name__})")]) from err


def load(**overrides: Any) -> Settings:
    """Return the configuration from the environment and the .env file (ENVFILEPATH, else `.env` in the working folder).

    `overrides` stand before the environment, by field name. Raises ConfigError with every mistake at once.
    """
    env_file = os.environ.get("ENVFILEPATH") or ".env"
    try:
        settings = Settings(_env_file=env_file, **overrides)
    except ValidationError as err:
        raise ConfigError([_problem(details) for details in err.errors()]) from None
    if not settings.refresh_token and not settings.password:
        raise ConfigError(
            [("EXASTRO_REFRESH_TOKEN_FILE, EXASTRO_PASSWORD_FILE", "the file is empty; write the secret")]
        )
    return settings


def _problem(details: Any) -> tuple[str, str]:
    variable = str(details["loc"][0]).upper() if details["loc"] else "configuration"
    if details["type"] == "missing":
        return variable, f"is missing; {_MISSING.get(variable, 'it is required')}"
    text = details["msg"].removeprefix("Value error, ")
    named, separator, rest = text.partition("|")
    return (named, rest) if separator else (variable, text)


_MISSING = {
    "EXASTRO_URL": "write the URL of Exastro, such as http://platform-auth:8000",
    "EXASTRO_ORGANIZATION_ID": "write the id of the organization as Exastro shows it",
    "EXASTRO_WORKSPACE_ID": "write the id of the workspace as Exastro shows it",
    "EVENT_COLLECTION_SETTINGS_NAMES": "write the names of event collection settings, separated by commas",
}
