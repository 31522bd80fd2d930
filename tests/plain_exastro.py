"""Protocol section 1.5 written down a second time, as plainly as can be: what the demo's Exastro is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_REMEMBERED_SECONDS = 72 * 3_600

Told = tuple[int, str, list[str] | None]


class PlainEvent(NamedTuple):
    """An event as it was saved."""

    setting_id: str
    agent_name: str
    fetched_time: int
    event: Mapping[str, Any]


@dataclass
class PlainExastro:
    """What Exastro has, and what it tells of each request.

    `names` are the settings' names by their ids; those in `discarded` are ids.
    """

    names: dict[str, str]
    discarded: set[str] = field(default_factory=set)
    progress: dict[tuple[str, str], int] = field(default_factory=dict)
    saved: list[PlainEvent] = field(default_factory=list)

    def told(self, groups: Sequence[Mapping[str, Any]], now: float) -> Told:
        """Save what is new of a request at `now`; return the status, the result, and the codes of the messages."""
        self.progress = {key: time for key, time in self.progress.items() if time >= now - _REMEMBERED_SECONDS}
        before, codes, news = dict(self.progress), [], []
        for group in sorted(groups, key=lambda group: int(group["fetched_time"])):
            setting_id, agent_name, time = self._id_of(group), group["agent"]["name"], group["fetched_time"]
            code = self._code(setting_id, time, before.get((setting_id, agent_name), 0))
            if code is not None:
                codes.append(code)
                continue
            self.progress[setting_id, agent_name] = time
            news += [PlainEvent(setting_id, agent_name, time, event) for event in group["event"]]
        if "499-01801" in codes and not news:
            return 499, "499-01802", None
        self.saved += news
        return 200, "000-00000", codes

    def _id_of(self, group: Mapping[str, Any]) -> str:
        name = group.get("event_collection_settings_name")
        by_name = [setting_id for setting_id, its_name in self.names.items() if its_name == name]
        return str(group.get("event_collection_settings_id") or (by_name or [""])[0])

    def _code(self, setting_id: str, time: int, latest: int) -> str | None:
        if setting_id not in self.names:
            return "499-01801"
        if setting_id in self.discarded:
            return "499-01827"
        return None if time > latest else "499-01818"
