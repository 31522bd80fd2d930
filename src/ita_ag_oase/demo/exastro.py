"""Exastro as an agent sees it: tokens, settings, and events saved by the rules of protocol section 1.5.

It keeps the books: what was saved, in which order, and what was saved twice. Faults can be ordered for the next posts,
and posts can be held.
"""

import base64
import collections
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self
from urllib.parse import parse_qs

from ita_ag_oase import clock
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_html, as_json
from ita_ag_oase.exastro.secrets import SecretColumns

ORGANIZATION = "demo-org"
WORKSPACE = "demo-ws"
REFRESH_TOKEN = "demo-refresh-token"  # noqa: S105 - opens the demo only
USERNAME, PASSWORD = "demo-user", "demo-password"
_PROGRESS_SECONDS = 72 * 3_600
_BASE = f"/api/{ORGANIZATION}/workspaces/{WORKSPACE}/oase_agent"
_SECRET_COLUMNS = ("AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY")

# What can be ordered to happen to a post; "lost" and "half" happen after events were saved.
FAULTS = ("503", "cut", "lost", "half", "html", "498", "499-01803", "413", "401", "400")


@dataclass(frozen=True)
class SavedEvent:
    """An event as Exastro has it."""

    setting_name: str
    agent_name: str
    fetched_time: int
    event: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from others; a mail has its message id for that."""
        return self.setting_name, str(self.event.get("_exastro_oase_event_id", self.event.get("message_id")))


class DemoExastro:
    """Serves one workspace while it is entered; entered again, it comes back on the same port and knows what it knew.

    `rows` are event collection settings with their secrets in clear; they travel encrypted. `faults` happen to the next
    posts, `settings_faults` (of those that save nothing) to the next requests for settings. `before_saving` sees every
    post first, may wait, and may return a fault or an answer of its own; `before_answering` may wait once a post was
    dealt with.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]] = (),
        *,
        refresh_token: str = REFRESH_TOKEN,
        password: str = PASSWORD,
        make_token: Callable[[], str] = secrets.token_urlsafe,
        token_seconds: float = 300.0,
        rotates_tokens: bool = False,
        max_request_bytes: int = 1 << 30,
        on_saved: Callable[[Sequence[SavedEvent]], None] = lambda _: None,
        now: Callable[[], float] = clock.now,
        port: int = 0,
    ) -> None:
        self.rows = list(rows)
        self.faults: collections.deque[str] = collections.deque()
        self.settings_faults: collections.deque[str] = collections.deque()
        self.before_saving: Callable[[Request], str | Reply | None] = lambda _: None
        self.before_answering: Callable[[], None] = lambda: None
        self.refuses: Callable[[Mapping[str, Any]], bool] = lambda _: False
        self.max_request_bytes = max_request_bytes
        self.saved: list[SavedEvent] = []
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.posts: list[int] = []
        self.fetches = 0
        self.tokens_issued = 0
        self.unauthorized = 0
        self._refresh_token = refresh_token
        self._password = password
        self._make_token = make_token
        self._token_seconds = token_seconds
        self._rotates_tokens = rotates_tokens
        self._refresh_tokens = {refresh_token}
        self._access_tokens: dict[str, float] = {}
        self._progress: dict[tuple[str, str], int] = {}
        self._on_saved = on_saved
        self._now = now
        self._lock = threading.Lock()
        self._server = LoopbackServer(self._handle, port, now=now)

    @cached_property
    def _secrets(self) -> SecretColumns:
        # Deriving the key takes long, and not everyone asks for settings.
        return SecretColumns(ORGANIZATION, WORKSPACE)

    @property
    def url(self) -> str:
        """The EXASTRO_URL of this Exastro."""
        return self._server.url

    @property
    def repeated(self) -> int:
        """How many times an event was saved that had been saved before."""
        return sum(count - 1 for count in self.counts.values())

    @property
    def secrets_issued(self) -> frozenset[str]:
        """The refresh tokens that are good now, and every access token that ever was."""
        with self._lock:
            return frozenset(self._refresh_tokens | self._access_tokens.keys())

    def events_of(self, setting_name: str) -> list[SavedEvent]:
        """Return what was saved of a setting, in the order in which it was saved."""
        with self._lock:
            return [event for event in self.saved if event.setting_name == setting_name]

    def revoke_access_tokens(self) -> None:
        """Let every access token be refused from now on, before its time."""
        with self._lock:
            self._access_tokens = dict.fromkeys(self._access_tokens, 0.0)

    def environment(self, names: Sequence[str]) -> dict[str, str]:
        """Return the variables that let an agent work with this Exastro."""
        return {
            "EXASTRO_URL": self.url,
            "EXASTRO_ORGANIZATION_ID": ORGANIZATION,
            "EXASTRO_WORKSPACE_ID": WORKSPACE,
            "EXASTRO_REFRESH_TOKEN": self._refresh_token,
            "EVENT_COLLECTION_SETTINGS_NAMES": ",".join(names),
        }

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _handle(self, request: Request) -> Reply:
        if request.path == f"/auth/realms/{ORGANIZATION}/protocol/openid-connect/token":
            return self._token(request)
        if not self._is_authenticated(request):
            self.unauthorized += 1
            return _refusal(401, "401-00001", "not authenticated")
        try:
            body = json.loads(request.body)
        except ValueError:
            return _refusal(400, "400-00001", "no JSON")
        if request.path == f"{_BASE}/event_collection/settings":
            return self._settings(body)
        if request.path == f"{_BASE}/events":
            return self._events(body, request)
        return as_html("Not Found", 404)

    def _token(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        with self._lock:
            given = form.get("refresh_token", "")
            is_known = form.get("client_id") == f"_{ORGANIZATION}-api" and given in self._refresh_tokens
            if form.get("grant_type") != "refresh_token" or not is_known:
                return as_json({"error": "invalid_grant", "error_description": "Invalid refresh token"}, 400)
            if self._rotates_tokens:
                self._refresh_tokens = {self._make_token()}
            token = self._make_token()
            self._access_tokens[token] = time.monotonic() + self._token_seconds
            self.tokens_issued += 1
            following = next(iter(self._refresh_tokens))
        answer = {"access_token": token, "expires_in": self._token_seconds, "refresh_expires_in": 0}
        return as_json({**answer, "refresh_token": following, "token_type": "Bearer"})

    def _is_authenticated(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            return base64.b64decode(value).decode() == f"{USERNAME}:{self._password}"
        with self._lock:
            return scheme == "Bearer" and self._access_tokens.get(value, 0.0) > time.monotonic()

    def _settings(self, body: Any) -> Reply:
        self.fetches += 1
        if self.settings_faults:
            return _BEFORE_SAVING[self.settings_faults.popleft()]
        names = body["event_collection_settings_names"]
        rows = [row for row in self.rows if row["EVENT_COLLECTION_SETTINGS_NAME"] in names]
        return _success([self._encrypted(row) for row in rows if row.get("DISUSE_FLAG") != "1"])

    def _encrypted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        encrypted = {column: self._secrets.encrypt(row.get(column) or "") for column in _SECRET_COLUMNS}
        return {**row, **encrypted}

    def _events(self, body: Any, request: Request) -> Reply:
        size = len(request.body)
        fault = self.before_saving(request)
        if isinstance(fault, Reply):
            return fault
        with self._lock:
            self.posts.append(size)
            if fault is None and self.faults:
                fault = self.faults.popleft()
            if fault is None and size > self.max_request_bytes:
                fault = "413"
            if fault in _BEFORE_SAVING:
                return _BEFORE_SAVING[fault]
            if fault == "half":
                body = {"events": sorted(body["events"], key=lambda group: group["fetched_time"])[:1]}
            reply, saved = self._save(body)
        self._on_saved(saved)
        self.before_answering()
        return Reply(is_cut=True) if fault in ("lost", "half") else reply

    def _save(self, body: Any) -> tuple[Reply, list[SavedEvent]]:
        groups = body.get("events") if isinstance(body, dict) else None
        if not isinstance(groups, list) or not all(_is_well_formed(group, self.refuses) for group in groups):
            return _refusal(400, "400-00002", "an event is no object"), []
        self._forget_old_progress()
        before = dict(self._progress)
        messages: list[str] = []
        unknown = False
        saved: list[SavedEvent] = []
        for group in sorted(groups, key=lambda group: group["fetched_time"]):
            row = self._row_of(group)
            if row is None:
                unknown = True
                messages.append(f"499-01801: no such event collection setting ({_identity(group)})")
                continue
            if row.get("DISUSE_FLAG") == "1":
                messages.append(f"499-01827: the event collection setting is discarded ({_identity(group)})")
                continue
            setting_id, agent = row["EVENT_COLLECTION_SETTINGS_ID"], group.get("agent", {}).get("name", "")
            latest = before.get((setting_id, agent), -1)
            if group["fetched_time"] <= latest:
                messages.append(f"499-01818: not the newest fetched_time ({setting_id}, newest {latest})")
                continue
            saved += [
                SavedEvent(row["EVENT_COLLECTION_SETTINGS_NAME"], agent, group["fetched_time"], event)
                for event in group["event"]
            ]
            self._progress[setting_id, agent] = group["fetched_time"]
        if unknown and not saved:
            return _refusal(499, "499-01802", "no event could be saved"), []
        self.saved += saved
        self.counts.update(event.identity for event in saved)
        return _success(messages), saved

    def _forget_old_progress(self) -> None:
        oldest = self._now() - _PROGRESS_SECONDS
        self._progress = {key: latest for key, latest in self._progress.items() if latest >= oldest}

    def _row_of(self, group: Mapping[str, Any]) -> Mapping[str, Any] | None:
        setting_id = group.get("event_collection_settings_id")
        name = group.get("event_collection_settings_name")
        for row in self.rows:
            if setting_id == row["EVENT_COLLECTION_SETTINGS_ID"] or name == row["EVENT_COLLECTION_SETTINGS_NAME"]:
                return row
        return None


def setting_row(name: str, url: str, **columns: Any) -> dict[str, Any]:
    """Return a row of event collection settings as a screen of Exastro would make it: GET, no authentication."""
    return {
        "EVENT_COLLECTION_SETTINGS_ID": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "EVENT_COLLECTION_SETTINGS_NAME": name,
        "CONNECTION_METHOD_ID": "5",
        "REQUEST_METHOD_ID": "1",
        "URL": url,
        "PORT": None,
        "REQUEST_HEADER": None,
        "PARAMETER": None,
        "PROXY": None,
        "AUTH_TOKEN": "",
        "USERNAME": None,
        "PASSWORD": "",
        "ACCESS_KEY_ID": None,
        "SECRET_ACCESS_KEY": "",
        "MAILBOXNAME": None,
        "RESPONSE_KEY": None,
        "RESPONSE_LIST_FLAG": "1",
        "EVENT_ID_KEY": None,
        "TTL": 3_600,
        "NOTE": None,
        "DISUSE_FLAG": "0",
        "LAST_UPDATE_TIMESTAMP": "2026/01/01 00:00:00.000000",
        "LAST_UPDATE_USER": "demo",
        **columns,
    }


def _success(data: Any) -> Reply:
    return as_json({"result": "000-00000", "message": "SUCCESS", "ts": "2026-01-01T00:00:00.000Z", "data": data})


def _refusal(status: int, result: str, message: str) -> Reply:
    return as_json({"result": result, "message": message, "ts": "2026-01-01T00:00:00.000Z"}, status)


_BEFORE_SAVING = {
    "503": as_html("Service Unavailable", 503),
    "cut": Reply(is_cut=True),
    "html": as_html("Please log in", 200),
    "498": _refusal(498, "498-00004", "under maintenance"),
    "499-01803": _refusal(499, "499-01803", "the events could not be saved"),
    "413": as_html("Request Entity Too Large", 413),
    "401": _refusal(401, "401-00001", "not authenticated"),
    "400": _refusal(400, "400-00002", "bad request"),
}


def _is_well_formed(group: Any, refuses: Callable[[Mapping[str, Any]], bool]) -> bool:
    events = group.get("event") if isinstance(group, dict) else None
    return isinstance(events, list) and all(isinstance(event, dict) and not refuses(event) for event in events)


def _identity(group: Mapping[str, Any]) -> str:
    return str(group.get("event_collection_settings_id") or group.get("event_collection_settings_name"))
