"""The values that pass between the packages. All are frozen; nothing here does input or output."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from typing_extensions import Buffer

from ita_ag_oase.text import Text


class ConnectionMethod(StrEnum):
    """How the agent proves to a source who it is."""

    BEARER = "bearer"
    BASIC = "basic"
    SHARED_KEY = "shared_key"
    IMAP_PASSWORD = "imap_password"  # noqa: S105 - a name, no password
    NONE = "none"


class RequestMethod(StrEnum):
    """How a source is asked."""

    GET = "GET"
    POST = "POST"
    IMAP_TLS = "imap_tls"
    IMAP_STARTTLS = "imap_starttls"
    IMAP_PLAIN = "imap_plain"


@dataclass(frozen=True, slots=True)
class CollectionSetting:
    """One row of event collection settings, checked, with its secrets decrypted.

    `row` is the row as Exastro sent it, except for the decrypted secrets: what templates see.
    """

    id: str
    name: str
    connection_method: ConnectionMethod
    request_method: RequestMethod
    url: str = field(repr=False)
    port: int | None
    request_header: str | None = field(repr=False)
    parameter: str | None = field(repr=False)
    proxy: str | None = field(repr=False)
    auth_token: str = field(repr=False)
    username: str | None
    password: str = field(repr=False)
    access_key_id: str | None
    secret_access_key: str = field(repr=False)
    mailbox: str | None
    response_key: str | None
    is_list: bool
    event_id_key: str | None
    ttl_seconds: int
    row: Mapping[str, Any] = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown; empty ones left out."""
        own = (self.auth_token, self.password, self.secret_access_key)
        login = login_of(self.username, self.password)
        return (*(secret for secret in own if secret), *login, *secrets_in(self.proxy), *secrets_in(self.url))


def login_of(username: str | None, password: str | None) -> tuple[str, ...]:
    """Return what Basic authentication encodes, in which a short password is not found; nothing for no password."""
    return (f"{username or ''}:{password}",) if password else ()


def secrets_in(url: str | None) -> tuple[str, ...]:
    """Return what is secret in a URL's user part, as it is typed: the password, also behind its user.

    A user without a password is taken for a token.
    """
    try:
        # A proxy may stand without a scheme, which urlsplit would take the user for.
        parts = urlsplit(url if url and "://" in url else f"//{url or ''}")
    except ValueError:
        return ()
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not password:
        return (username,) if username else ()
    return password, *login_of(username, password)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a setting has been collected.

    `last_event` is the JSON of the last usable event as it was sent, labels included; None if there was none.
    `position` is what the source's last portion said, None before the first.
    """

    last_fetched_time: int
    last_event: bytes | None
    position: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes: a host and its port, whether TLS is spoken from the first byte, and the proxy between.

    `proxy` is a URL. `starts_tls` tells that encryption is asked for in the protocol's own words (STARTTLS).
    """

    host: str
    port: int
    is_encrypted: bool
    starts_tls: bool = False
    proxy: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Host and port, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as it was sent to a source, secrets included, and the head of its answer.

    `status` and `content_type` are None where no answer came, or where the answer does not tell.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    status: int | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Payload:
    """A source's answer: JSON text, in UTF-8 or else in the character set that the source named."""

    body: bytes | bytearray
    charset: str | None = None


class Event(NamedTuple):
    """One event of a poll, before it is known whether it is new.

    `id` is the text Exastro gets as `_exastro_oase_event_id`; `is_serial` tells that the agent made it up, so that it
    tells nothing about whether the event was seen before. `raw` is the event's JSON object without labels, and
    `unavailable` the reason why Exastro shall show it as unusable, if any.
    """

    id: str
    is_serial: bool
    raw: Buffer
    unavailable: str | None


@dataclass(frozen=True, slots=True)
class Portion:
    """A bounded part of what a source has that knows its events itself, in its order.

    `position` is where the next portion starts, in the source's own words. `has_more` tells that it can be had now.
    """

    events: Sequence[Event]
    position: str
    has_more: bool


@dataclass(frozen=True, slots=True)
class Labels:
    """What every event of one poll has in common; `has_event_id` tells whether each also gets its id as a label."""

    setting_id: str
    setting_name: str
    fetched_time: int
    end_time: int
    has_event_id: bool = True


@dataclass(frozen=True, slots=True)
class Collection:
    """What one poll found, ready to be saved in one transaction.

    `moves_cursor` is False where the answer was not the expected one, so that the next poll asks for the same time, and
    for a portion that is not the last. `position` replaces the cursor's, unless it is None.
    """

    setting_id: str
    agent_name: str
    labels: Labels
    events: Iterable[Event]
    moves_cursor: bool
    position: str | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """How many events of a poll were new, known from before, or the same unusable ones as at the last poll."""

    new: int
    known: int
    repeated: int

    def __add__(self, other: "Saved") -> "Saved":
        """Return the sums."""
        return Saved(self.new + other.new, self.known + other.known, self.repeated + other.repeated)


class EventFate(StrEnum):
    """What becomes of an event of a poll that is saved."""

    NEW = "new"
    KNOWN = "known"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Group:
    """Events that travel together under one key: (setting, agent name, fetched time).

    `pieces` is their JSON in order, the events in each joined by commas, without brackets around. `was_offered` tells
    that an earlier request with this group may have been saved.
    """

    number: int
    setting_id: str | None
    setting_name: str
    agent_name: str
    fetched_time: int
    event_count: int
    pieces: tuple[bytes, ...]
    was_offered: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one request, oldest first.

    `damaged` are groups that were parked instead, without their pieces, because the bytes on disk have changed.
    """

    groups: tuple[Group, ...]
    damaged: tuple[Group, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the groups."""
        return tuple(group.number for group in self.groups)

    @property
    def event_count(self) -> int:
        """The number of events in all groups."""
        return sum(group.event_count for group in self.groups)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of the groups of a batch, by their numbers; groups named nowhere are offered anew.

    `saved`: Exastro saved them now. `already_saved`: it had saved them from an earlier offer. `collided`: their keys
    were taken; the value is the greatest key known to be taken. `parked`: refused for good; the value is the reason.
    `answers`: Exastro's words about groups, where it had any.
    """

    saved: frozenset[int] = frozenset()
    already_saved: frozenset[int] = frozenset()
    collided: Mapping[int, int] = field(default_factory=dict)
    parked: Mapping[int, str] = field(default_factory=dict)
    answers: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TakeOver:
    """What was taken over from the stock agent's database; `unreadable` counts rows, `problems` says why."""

    groups: int
    events: int
    ids: int
    cursors: int
    unreadable: int
    problems: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was saved of a damaged store into a new one.

    `damage` says what was found, `set_aside` where the damaged file is now. `lost` counts events that were there and
    could not be read, as far as the ledger tells; `damaged_tables` were not read whole, and `problems` says why.
    Delivered events whose ids are gone may be delivered once more.
    """

    settings: int = 0
    groups: int = 0
    events: int = 0
    ids: int = 0
    lost: int = 0
    damaged_tables: tuple[str, ...] = ()
    problems: tuple[Text, ...] = ()
    damage: Text | None = None
    set_aside: str = ""


class GroupState(StrEnum):
    """Where a group of the outbox stands."""

    WAITING = "waiting"
    IN_FLIGHT = "in flight"
    PARKED = "parked"


class GroupKey(NamedTuple):
    """What a person calls a group by: the name of its setting and its fetched time."""

    setting_name: str
    fetched_time: int | None

    def __str__(self) -> str:
        """Return it as it is written: SETTING@FETCHED_TIME, or SETTING@- where there is no time yet."""
        return f"{self.setting_name}@{'-' if self.fetched_time is None else self.fetched_time}"


@dataclass(frozen=True, slots=True)
class GroupChoice:
    """Which groups of the outbox are meant: those in one of the states that fit everything else that is given.

    `reason` is a part of the reason for which they were parked.
    """

    states: frozenset[GroupState] = frozenset(GroupState)
    keys: frozenset[GroupKey] = frozenset()
    setting_name: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxGroup:
    """A group of the outbox as a person sees it, without its events.

    `since` is when it was parked, else when its poll started, in epoch seconds.
    """

    number: int
    key: GroupKey
    agent_name: str
    state: GroupState
    reason: str | None
    parked_time: int | None
    since: int
    event_count: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class OutboxSummary:
    """How much of a setting is in a state for the same reason; `oldest` is the earliest `since`."""

    setting_name: str
    state: GroupState
    reason: str | None
    group_count: int
    event_count: int
    byte_count: int
    oldest: int


class Outcome(StrEnum):
    """How a group left the outbox, or went on in it under another key or in parts."""

    DELIVERED = "delivered"
    ALREADY_SAVED = "already_saved"
    DROPPED = "dropped"
    MOVED = "moved"
    CUT = "cut"
    RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """What is known of a group at one moment: how it left the outbox or was changed there, or how it stands now.

    `fetched_time` is when its poll started, `time` when it came to this, None while it waits or is in flight. `place`
    is an event's among those of the group, counted from 1. `answer` is what Exastro said last, or why the group was
    parked; None where it said nothing.
    """

    key: GroupKey
    agent_name: str
    fetched_time: int
    event_count: int
    place: int | None
    offers: int
    first_offer: int | None
    latest_offer: int | None
    state: Outcome | GroupState
    time: int | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class EventLife:
    """What is known of an event of one setting, in epoch seconds.

    `first_poll` is when the poll started that saw it first, None where that was not noted. `last_seen` is when it was
    last noted that an answer held its id, None for an id that the agent made up. `records` are those of its groups, the
    present one last; where it is not `is_certain`, they are those of all groups of its poll.
    """

    setting_id: str | None
    setting_name: str
    first_poll: int | None
    last_seen: int | None
    records: tuple[GroupRecord, ...]
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Tally:
    """How much of the outbox something was done to."""

    groups: int
    events: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """How many events of a setting were seen, and what became of them."""

    setting_name: str
    seen: int
    new: int
    known: int
    repeated: int
    waiting: int
    parked: int
    delivered: int
    already_saved: int
    dropped: int
    lost: int

    @property
    def is_seen_balanced(self) -> bool:
        """Whether every event that was seen was new, known or repeated."""
        return self.seen == self.new + self.known + self.repeated

    @property
    def is_new_balanced(self) -> bool:
        """Whether it is known of every new event what became of it."""
        return self.new == self._found_again

    @property
    def imbalance(self) -> int:
        """By how many events the two sides of it differ; 0 where it is balanced."""
        return abs(self.seen - self.new - self.known - self.repeated) + abs(self.new - self._found_again)

    @property
    def _found_again(self) -> int:
        done = self.delivered + self.already_saved + self.dropped + self.lost
        return self.waiting + self.parked + done

    @property
    def is_balanced(self) -> bool:
        """Whether both are so."""
        return self.is_seen_balanced and self.is_new_balanced


@dataclass(frozen=True, slots=True)
class Verification:
    """The ledger of each setting, and a sentence for everything that is wrong with a store."""

    ledgers: tuple[Ledger, ...]
    findings: tuple[Text, ...]


class Journal(StrEnum):
    """How the store makes its changes safe, in SQLite's words (PRAGMA journal_mode)."""

    WAL = "WAL"
    TRUNCATE = "TRUNCATE"


@dataclass(frozen=True, slots=True)
class Claim:
    """What makes an agent the one that may write: a guard, and a number that tells later claims from earlier ones.

    `guard` is the Lease that it holds, as `namespace/name`, and empty where it has the lock on the store alone; then it
    has no number of its own. `holder` names the process, and no other one, where there is a guard.
    """

    holder: str
    guard: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A claim that was written into the store; `begun` is when, in epoch seconds."""

    number: int
    holder: str
    guard: str
    begun: int
