"""Judges what an agent sends and what Exastro saves, while the agent is killed and requests go astray."""

import json
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from exactly_once import ANSWERED, DEALT_WITH, SENT, Answering, Bench, left_by_a_kill
from ita_ag_oase.demo.exastro import FAULTS as DEMO_FAULTS
from ita_ag_oase.demo.loopback import Reply, Request, as_html, as_json
from plain_exastro import PlainExastro, Told

# What a request can meet; one is too large by its size alone: see DemoExastro.max_request_bytes.
OWN_FAULTS = {
    "999-99999": as_json({"result": "999-99999", "message": "", "ts": ""}, 500),
    "429": as_html("Too Many Requests", 429),
    "502-json": as_json({"result": "502-00001", "message": "", "ts": ""}, 502),
}
# Saved later than the agent learns that the connection is broken, or not at all.
LATE = "late"
FAULTS = ("503", "cut", "lost", "half", "html", "498", "499-01803", "401", LATE, *OWN_FAULTS)
UNPROCESSED = ("498", "401")
# After so long, less what the agent's clock is behind, Exastro may have forgotten a request whose fate is unknown:
# 72 hours, less the age that a key may have when it is first offered.
BELIEVED_SECONDS = 48 * 3_600


# A number counts instants.
Kill = int | str | None


class Killer:
    """Waits for an instant; then it keeps the files as a kill leaves them."""

    def __init__(self) -> None:
        self.due: Kill = None
        self.instant: str | None = None
        self.files: dict[str, bytes] = {}
        self.bench: Bench

    def at(self, instant: str) -> None:
        if self.due in (0, instant):
            self.strike(instant)
        elif isinstance(self.due, int):
            self.due -= 1

    def strike(self, instant: str) -> None:
        self.due = None
        self.instant = instant
        self.files = left_by_a_kill(self.bench._path)


class Offer(NamedTuple):
    """When an event was offered first, and with which of its setting's requests.

    Where the agent's clock was behind, the time is as much earlier.
    """

    since: float
    number: int


class Judge(Answering):
    """Hands requests to the demo's Exastro, holds it against a plain one, and judges what was asked and saved."""

    def __init__(self, bench: Bench, killer: Killer) -> None:
        super().__init__(bench.exastro, killer.at)
        self.plain = PlainExastro({row["EVENT_COLLECTION_SETTINGS_ID"]: name for name, row in bench.rows.items()})
        self.faults: deque[str] = deque()
        self._held: list[Request] = []
        self.arrived: dict[str, list[int]] = defaultdict(list)
        self._bench = bench
        self._killer = killer
        self._pending: bytes | None = None
        self._is_settling = False
        self._seen = 0
        self._latest_key: dict[str, int] = defaultdict(int)
        self._offers: dict[tuple[str, int], Offer] = {}
        self._fates: dict[str, list[str]] = defaultdict(list)

    @property
    def _now(self) -> float:
        return self._bench.now + self._bench.exastro_ahead_seconds

    def hand_over(self, request: Request) -> Reply:
        if self._killer.instant not in (None, SENT):
            # The process that was killed goes on for a while in this one; it reaches nobody.
            return Reply(is_cut=True)
        fault = LATE if self._killer.instant == SENT else self._next_fault()
        self._judge_request(request, fault)
        if fault == LATE:
            self._held.append(request)
            return Reply(is_cut=True)
        # Of a fate that stays unknown only Exastro's words are noted, and the same request must come again.
        self._is_settling = fault is None or fault in UNPROCESSED
        return OWN_FAULTS[fault] if fault in OWN_FAULTS else self._compare(request, fault)

    def note_end(self, *, is_settled: bool) -> None:
        """Note that a round of delivery ended, and whether the agent knows the fate of what it sent."""
        if self._killer.instant is None:
            self._is_settling = False
            self._pending = None if is_settled else self._pending

    def note_kill(self) -> None:
        """Note that the next life does not know the fate of a request, unless it was being settled."""
        for group in json.loads(self._pending or b'{"events": []}')["events"]:
            # Also one that was surely not looked at: the agent ended before it knew.
            self._note_offer(group, "unknown")
        if self._is_settling and self._killer.instant not in (DEALT_WITH, ANSWERED):
            self._pending = None
        self._is_settling = False

    def forget(self) -> None:
        """Note that the agent forgot everything: its requests, and the keys that it gave."""
        self._pending = None
        self._latest_key.clear()

    def saved_under(self, setting_id: str, agent_name: str, key: int | None) -> list[int]:
        """Return the events that Exastro saved under a key, in their order."""
        return [
            event["id"]
            for owner, name, time, event in self.plain.saved
            if (owner, name, time) == (setting_id, agent_name, key)
        ]

    def was_unsure(self, setting_id: str, number: int) -> bool:
        """Whether the fate of a request of its setting was unknown since this event was offered first."""
        offer = self._offers.get((setting_id, number))
        return offer is not None and "unknown" in self._fates[setting_id][offer.number :]

    def let_late_ones_arrive(self) -> None:
        for request in self._held:
            self._compare(request, None)
        self._held.clear()

    def _next_fault(self) -> str | None:
        return self.faults.popleft() if self.faults else None

    def _judge_request(self, request: Request, fault: str | None) -> None:
        """Judge that nothing else is sent while a request's fate is unknown, and note what this one meets."""
        assert self._pending in (None, request.body), "another request, before the fate of the last one was known"
        self._pending = request.body
        meets = "unprocessed" if fault in UNPROCESSED else "unknown" if fault else "answer"
        if self._is_too_large(request, fault):
            meets = "too large"
            # The gateway that finds it too large does not pass it on later either.
            self._held.clear()
        for group in json.loads(request.body)["events"]:
            self._note_offer(group, meets)

    def _is_too_large(self, request: Request, fault: str | None) -> bool:
        return fault is None and len(request.body) > self.exastro.max_request_bytes

    def _note_offer(self, group: Mapping[str, Any], meets: str) -> None:
        setting_id = group["event_collection_settings_id"]
        self._fates[setting_id].append(meets)
        if meets == "unprocessed":
            return
        since = self._now - max(0.0, self._bench.exastro_ahead_seconds)
        offer = Offer(since, number=len(self._fates[setting_id]) - 1)
        for event in group["event"]:
            self._offers.setdefault((setting_id, event["id"]), offer)

    def _compare(self, request: Request, fault: str | None) -> Reply:
        """Return what the demo's Exastro answers, which must be what the plain one tells."""
        if fault is not None:
            assert fault in DEMO_FAULTS
            self.exastro.faults.append(fault)
        reply = self.exastro._handle(request)
        told = self._told_by_plain(request, fault)
        if fault is None:
            assert _told(reply) == told
        elif fault in ("lost", "half"):
            assert reply.is_cut
        saved = self.exastro.saved[self._seen :]
        assert [(event.agent_name, event.fetched_time, event.event) for event in saved] == [
            event[1:] for event in self.plain.saved[self._seen :]
        ]
        self._judge_saved()
        return reply

    def _told_by_plain(self, request: Request, fault: str | None) -> Told:
        groups = json.loads(request.body)["events"]
        if fault not in (None, "lost", "half"):
            return 0, "", None
        if fault == "half":
            groups = sorted(groups, key=lambda group: int(group["fetched_time"]))[:1]
        if self._is_too_large(request, fault):
            return 413, "", None
        if any(self.exastro.refuses(event) for group in groups for event in group["event"]):
            return 400, "400-00002", None
        return self.plain.told(groups, self._now)

    def _judge_saved(self) -> None:
        for setting_id, _, key, event in self.plain.saved[self._seen :]:
            number = event["id"]
            if number in self.arrived[setting_id]:
                assert self._is_excused(setting_id, number), f"{number} was saved twice"
                continue
            assert number > max(self.arrived[setting_id], default=0), f"{number} came out of order"
            assert key >= self._latest_key[setting_id], "a key fell"
            self._latest_key[setting_id] = key
            self.arrived[setting_id].append(number)
        self._seen = len(self.plain.saved)

    def _is_excused(self, setting_id: str, number: int) -> bool:
        """Whether decision 0002 says that this event may come twice."""
        offer = self._offers[setting_id, number]
        fates = self._fates[setting_id][offer.number :]
        return self._now - offer.since > BELIEVED_SECONDS or (fates.count("unknown") >= 4 and "too large" in fates)


def _told(reply: Reply) -> Told:
    if reply.content_type != "application/json":
        return reply.status, "", None
    answer = json.loads(reply.body)
    messages = answer.get("data")
    return reply.status, answer["result"], None if messages is None else [message[:9] for message in messages]
