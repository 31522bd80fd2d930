"""Every environment variable the agent knows, its default and unit, and what follows from them (protocol section 2.1).

A new variable is a new field of `Variables`, and that is all where its type says what may be written: `int`, `float`,
`bool`, `str` and `Path`, or `None` where it may be unset. A further rule goes into `environment._RULES`, limits of a
number go into RANGES. `environment.load` makes the one instance of `Settings`, `reader` has a process of its own do so.
"""

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

_DAY_SECONDS = 86_400

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
    "status_port": (0, 65_535),
}

LANGUAGES = ("en", "ja")


class Adjustment(NamedTuple):
    """A value that was out of range and what is used instead."""

    variable: str
    given: int
    used: int


@dataclass(frozen=True, kw_only=True)
class Variables:
    """The values of the variables. A field's name in upper case is the variable's name."""

    language: str = "en"
    default_language: str = "ja"

    exastro_url: str
    exastro_organization_id: str
    exastro_workspace_id: str
    event_collection_settings_names: tuple[str, ...]

    exastro_refresh_token: str | None = field(default=None, repr=False)
    exastro_refresh_token_file: Path | None = None
    exastro_username: str | None = None
    exastro_password: str | None = field(default=None, repr=False)
    exastro_password_file: Path | None = None

    exastro_tls_verify: bool = True
    exastro_ca_file: Path | None = None
    source_tls_verify: bool = True
    source_ca_file: Path | None = None
    http_proxy: str | None = field(default=None, repr=False)
    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: str | None = None

    agent_name: str = "agent-oase-01"
    agent_id: str | None = None
    hostname: str | None = None
    storagepath: Path = Path("/storage")

    execute_interval: int = 5
    iteration: int = 10
    batch_max_events: int = 5_000
    batch_max_bytes: int = 4_000_000
    response_max_bytes: int = 33_554_432
    storage_max_bytes: int = 1_073_741_824
    store_journal: str = "auto"
    event_id_retention_seconds: int = 604_800

    status_address: str = "127.0.0.1"
    status_port: int = 9_879

    log_level: str = "INFO"
    tz: str | None = None

    leader_election: str = "off"
    lease_name: str | None = None
    lease_credentials: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    lease_namespace: str | None = None
    pod_name: str | None = None
    lease_retry_seconds: float = 2.0
    lease_renew_seconds: float = 10.0
    lease_seconds: int = 15
    kubernetes_service_host: str | None = None
    kubernetes_service_port: str = "443"


VARIABLES = tuple(variable.name for variable in fields(Variables))


@dataclass(frozen=True, kw_only=True)
class Settings(Variables):
    """The agent's configuration, checked: what its files hold and its ranges allow. Secrets are left out of its repr.

    `adjustments` tells the values that were moved into their range.
    """

    adjustments: tuple[Adjustment, ...] = ()

    @property
    def message_language(self) -> str:
        """The language to tell people in, one of LANGUAGES."""
        return choose_language(self.language, self.default_language)

    @property
    def agent_identity(self) -> str:
        """The `agent.name` of posts: AGENT_ID, else HOSTNAME, else AGENT_NAME."""
        return self.agent_id or self.hostname or self.agent_name

    @property
    def refresh_token(self) -> str | None:
        """The refresh token, from its file where one is named."""
        return self.exastro_refresh_token

    @property
    def password(self) -> str | None:
        """The password, from its file where one is named."""
        return self.exastro_password

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        # Here, so that the process that reads the configuration does without the rest of the model.
        from ita_ag_oase.model import login_of, secrets_in

        own = tuple(secret for secret in (self.refresh_token, self.password) if secret)
        login = login_of(self.exastro_username, self.password)
        return (*own, *login, *secrets_in(self.http_proxy), *secrets_in(self.https_proxy))

    @property
    def has_election(self) -> bool:
        """Whether the agent works only while it holds a Lease."""
        return self.leader_election == "lease"

    @property
    def lease(self) -> str:
        """The Lease, as `namespace/name`."""
        return f"{self.lease_namespace}/{self.lease_name}"

    @property
    def kubernetes_url(self) -> str:
        """The API server, as Kubernetes tells it to every pod."""
        host = self.kubernetes_service_host or ""
        return f"https://{f'[{host}]' if ':' in host else host}:{self.kubernetes_service_port}"

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


def choose_language(language: str, default_language: str) -> str:
    """Return one of LANGUAGES: LANGUAGE where it names one, else DEFAULT_LANGUAGE, else English."""
    named = (re.split("[^a-z]", given.strip().lower())[0] for given in (language, default_language))
    return next((code for code in named if code in LANGUAGES), LANGUAGES[0])


def hand_on_language(language: str) -> None:
    """Have what goes by gettext, such as argparse, speak a language: it knows of none but by this variable."""
    os.environ["LANGUAGE"] = language


def wants_colours() -> bool:
    """Whether a terminal may show colours, which NO_COLOR denies (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")
