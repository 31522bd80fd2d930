"""Reads the environment and checks it: the rules of protocol section 2.1, with pydantic.

The agent's own process does without it (`reader`), since what is loaded for it is never given back.
"""

import contextlib
import dataclasses
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ita_ag_oase.errors import ConfigError
from ita_ag_oase.settings import LANGUAGES, RANGES, VARIABLES, Adjustment, Settings, Variables, choose_language
from ita_ag_oase.text import Text, verbatim

_IDENTITY = re.compile(r"[a-zA-Z0-9_-]{1,36}")
_HOST = re.compile(r"[\w.:-]+")
_PLAIN_HOST = re.compile(r"(?!.*xn--)[a-z_][a-z0-9_.-]*")
_FILE_NAME_BYTES = 200
_DAY_SECONDS = 86_400
# As Kubernetes has them: RFC 1123.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LONGEST_LEASE_SECONDS = 3_600


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
    is_url = parts.scheme in ("http", "https") and _is_host(host) and url.isprintable() and " " not in url
    return parts if is_url else None


def _is_host(host: str) -> bool:
    if _PLAIN_HOST.fullmatch(host):
        return True
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    # Few hosts are anything else, and to load httpx takes longer than all the rest here.
    import httpx

    try:
        # Its host in Unicode is asked for with each request.
        return bool(_HOST.fullmatch(host) and httpx.URL(f"http://{host}").host)
    except (httpx.InvalidURL, UnicodeError):
        return False


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


def _seconds(value: Any) -> Any:
    if isinstance(value, float):
        return value
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", str(value).strip()):
        raise ValueError(Text("is {given!r}; write a number of seconds, such as 2 or 0.5", given=value))
    return float(value)


def _is_elected(info: ValidationInfo) -> bool:
    return bool(info.data.get("leader_election") == "lease")


def _lease_name(value: str | None, info: ValidationInfo) -> str | None:
    if _is_elected(info) and not _SUBDOMAIN.fullmatch(value or ""):
        raise ValueError(Text("must name the Lease for LEADER_ELECTION=lease; write the name of one that there is"))
    return value


def _lease_namespace(value: str | None, info: ValidationInfo) -> str | None:
    if not _is_elected(info) or "lease_credentials" not in info.data:
        return value
    file = info.data["lease_credentials"] / "namespace"
    if value is None:
        try:
            value = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            problem = Text("is missing, and {file} cannot be read; write the namespace of the Lease", file=file)
            raise ValueError(problem) from None
    if not _LABEL.fullmatch(value):
        raise ValueError(Text("is {given!r}, which names no namespace; write that of the Lease", given=value))
    return value


def _api_host(value: str | None, info: ValidationInfo) -> str | None:
    if _is_elected(info) and not _HOST.fullmatch(value or ""):
        raise ValueError(
            Text(
                "is not set, as Kubernetes does in every pod; set LEADER_ELECTION=off outside of Kubernetes, where the "
                "lock on the store keeps a second agent away"
            )
        )
    return value


def _api_port(value: str, info: ValidationInfo) -> str:
    if _is_elected(info) and not re.fullmatch(r"\d{1,5}", value):
        raise ValueError(Text("is {given!r}; write the number of the API server's port", given=value))
    return value


def _lease_times(value: int, info: ValidationInfo) -> int:
    """Return the time of the Lease, the last of the three to be known."""
    names = ("lease_renew_seconds", "lease_retry_seconds")
    if not _is_elected(info) or not info.data.keys() >= set(names):
        return value
    renew, retry = (info.data[name] for name in names)
    if not (0 < 2 * retry <= renew <= value - retry and value <= _LONGEST_LEASE_SECONDS):
        raise ValueError(
            Text(
                "is {lease}, which does not fit LEASE_RENEW_SECONDS={renew:g} and LEASE_RETRY_SECONDS={retry:g}; write "
                "times such as 15, 10 and 2: the second at least twice the third, and shorter than the first by that, "
                "the first at most {most}",
                lease=value,
                renew=renew,
                retry=retry,
                most=_LONGEST_LEASE_SECONDS,
            )
        )
    return value


def _one_of(*choices: str) -> Any:
    """Return the rule that one of these is written, in capital or small letters."""
    by_small_letters = {choice.lower(): choice for choice in choices}

    def chosen(value: Any) -> Any:
        choice = by_small_letters.get(str(value).strip().lower())
        if choice is None:
            raise ValueError(Text("is {given!r}; write one of {levels}", given=value, levels=", ".join(choices)))
        return choice

    return Annotated[Literal[choices], BeforeValidator(chosen)]


_Number = Annotated[int, BeforeValidator(_whole_number)]
_Seconds = Annotated[float, BeforeValidator(_seconds)]
_Switch = Annotated[bool, BeforeValidator(_switch)]
_Proxy = Annotated[str | None, AfterValidator(_proxy)]
_Identity = Annotated[str, AfterValidator(_identity)]
_ReadableFile = Annotated[Path | None, AfterValidator(_readable_file)]
_SecretFile = Annotated[Path | None, AfterValidator(_secret_file)]

# What may be written for a variable, where its type does not say all.
_RULES: dict[str, Any] = {
    "exastro_url": Annotated[str, AfterValidator(_url)],
    "exastro_organization_id": _Identity,
    "exastro_workspace_id": _Identity,
    "event_collection_settings_names": Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)],
    "exastro_refresh_token_file": _SecretFile,
    "exastro_password_file": Annotated[_SecretFile, Field(validate_default=True)],
    "exastro_ca_file": _ReadableFile,
    "source_ca_file": _ReadableFile,
    "http_proxy": _Proxy,
    "https_proxy": _Proxy,
    "agent_name": Annotated[str, AfterValidator(_file_name)],
    "status_address": Annotated[str, AfterValidator(_address)],
    "store_journal": _one_of("auto", "wal", "truncate"),
    "log_level": _one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    "leader_election": _one_of("off", "lease"),
    # Defaults, too, since these depend on the one before.
    "lease_name": Annotated[str | None, AfterValidator(_lease_name), Field(validate_default=True)],
    "lease_namespace": Annotated[str | None, AfterValidator(_lease_namespace), Field(validate_default=True)],
    "lease_seconds": Annotated[_Number, AfterValidator(_lease_times), Field(validate_default=True)],
    "kubernetes_service_host": Annotated[str | None, AfterValidator(_api_host), Field(validate_default=True)],
    "kubernetes_service_port": Annotated[str, AfterValidator(_api_port)],
}
_RULES_OF_TYPES: dict[Any, Any] = {int: _Number, float: _Seconds, bool: _Switch}

_WAYS_TO_AUTHENTICATE = frozenset(
    {"exastro_refresh_token", "exastro_refresh_token_file", "exastro_username", "exastro_password"}
)


class _Read(BaseSettings):
    """What is read of the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)


class _Checked(_Read):
    """The rules that are about several variables, or about all."""

    _adjustments: list[Adjustment] = PrivateAttr(default_factory=list)

    @field_validator("*", mode="before")
    @classmethod
    def _decodable(cls, value: Any) -> Any:
        # What the environment holds in another character set arrives as lone surrogates, which no JSON can carry.
        if isinstance(value, str) and value != value.encode(errors="replace").decode():
            raise ValueError(Text("is not written in UTF-8; write it so"))
        return value

    @field_validator("exastro_password_file", check_fields=False)
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
        # The model is frozen for everyone but its validators, which are still making it.
        read = self.__dict__
        token = _secret_of(read["exastro_refresh_token_file"], read["exastro_refresh_token"])
        # A line end behind it would be sent, too; no token holds white space.
        read["exastro_refresh_token"] = token.strip() if token else None
        read["exastro_password"] = _secret_of(read["exastro_password_file"], read["exastro_password"])
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
                self.__dict__[name] = used
        return self

    def settings(self) -> Settings:
        """Return what was read, without pydantic."""
        values = {name: getattr(self, name) for name in VARIABLES}
        return Settings(**values, adjustments=tuple(self._adjustments))


def _secret_of(file: Path | None, value: str | None) -> str | None:
    in_file = _secret_in(file)
    if in_file or value is None:
        return in_file
    # A secret that is white space alone came out of a file that was empty, too.
    return value if value.strip() else None


def _fields(*names: str) -> dict[str, Any]:
    """Return the fields of a model for variables: what may be written, and the default (`...` where there is none)."""
    variables = {variable.name: variable for variable in dataclasses.fields(Variables)}
    return {name: (_rule(variables[name]), _default(variables[name])) for name in names}


def _rule(variable: dataclasses.Field[Any]) -> Any:
    return _RULES.get(variable.name) or _RULES_OF_TYPES.get(variable.type, variable.type)


def _default(variable: dataclasses.Field[Any]) -> Any:
    return ... if variable.default is dataclasses.MISSING else variable.default


_Languages = create_model("_Languages", __base__=_Read, **_fields("language", "default_language"))
Environment = create_model("Environment", __base__=_Checked, **_fields(*VARIABLES))


def load(**overrides: Any) -> Settings:
    """Return the configuration from the environment and the .env file (ENVFILEPATH, else `.env` in the working folder).

    `overrides` stand before the environment, by field name. Raises ConfigError with every mistake at once.
    """
    env_file = _env_file()
    try:
        return Environment(_env_file=env_file, _env_file_encoding="utf-8-sig", **overrides).settings()
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
        found = _Languages(_env_file=_env_file(), _env_file_encoding="utf-8-sig").model_dump()
    except (ValidationError, OSError, UnicodeDecodeError):
        return LANGUAGES[0]
    return choose_language(**found)


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
