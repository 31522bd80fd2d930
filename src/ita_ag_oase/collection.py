"""One setting, once: cursor, fetch, extract, save. A step without a loop."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import structlog

from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.errors import Reason, StoreUnavailable
from ita_ag_oase.events import extract
from ita_ag_oase.events.extract import Extractor
from ita_ag_oase.model import Collection, CollectionSetting, Event, Labels, Listing, Payload, Portion, Saved
from ita_ag_oase.observability.health import Health
from ita_ag_oase.sources.source import Source
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text

_log = structlog.get_logger()

# A source that never comes to an end must not keep a poll from ending.
MAX_PORTIONS = 200

# Message codes of why events are unusable (protocol section 2.9).
_CODES = {
    extract.KEY_NOT_FOUND: "AGT-10002",
    extract.IS_NO_LIST: "AGT-10003",
    extract.ID_NOT_FOUND: "AGT-10030",
    extract.IS_A_LIST: "AGT-10031",
    extract.NO_CONTAINER: "AGT-10031",
    extract.NO_OBJECT: "AGT-10031",
}


class Collector:
    """Polls one setting's source and saves what is new. Raises SettingInvalid for keys that are no JMESPath."""

    def __init__(
        self,
        setting: CollectionSetting,
        source: Source,
        store: Store,
        clock: SteadyClock,
        health: Health,
        *,
        agent_name: str,
    ) -> None:
        self._setting = setting
        self._source = source
        self._store = store
        self._clock = clock
        self._health = health
        self._agent_name = agent_name
        self._extractor = Extractor.of(setting)
        self._told: frozenset[str] = frozenset()

    async def collect(self) -> Saved:
        """Poll once and return how many events were new.

        New events, the ids of all, and the advanced cursor are saved together; where the source hands over portions,
        each is saved before the next is asked for, and a bounded number of them; the next poll goes on behind them.
        Raises the errors of sources and store; then the last answer is not saved and the next poll asks from the same
        time and position.
        """
        now, moves = self._clock.now(), self._clock.moves
        saved = Saved(new=0, known=0, repeated=0)
        for _ in range(MAX_PORTIONS):
            further, has_more = await self._collect_portion(now, moves)
            saved += further
            if not has_more:
                break
        return saved

    async def close(self) -> None:
        """End what the source holds open."""
        await self._source.close()

    async def _collect_portion(self, now: float, moves: int) -> tuple[Saved, bool]:
        """Save one answer; return what was new in it, and whether the source has more at once."""
        self._store.require_room()
        cursor = await self._store.cursor(self._setting.id)
        _log.debug("collection_started", code="AGT-10011", setting=self._setting.name)
        answer = await self._source.fetch(cursor, now)
        if self._clock.moves != moves:
            raise StoreUnavailable(Text("the clock was set during the poll: it comes again"), reason=Reason.CLOCK)
        found = collection_of(self._setting, self._extractor, answer, now, agent_name=self._agent_name)
        unusable: Counter[str] = Counter()
        if not isinstance(found.events, Listing):
            found = replace(found, events=_counted(found.events, unusable))
        saved = await self._store.save(found)
        self._health.events_saved(self._setting.name, saved, unusable=unusable.total())
        self._tell(saved)
        self._tell_unusable(unusable)
        return saved, isinstance(answer, Portion) and answer.has_more

    def _tell(self, saved: Saved) -> None:
        tell = _log.info if saved.new else _log.debug
        tell(
            "collection_finished",
            code="AGT-10012",
            setting=self._setting.name,
            new=saved.new,
            known=saved.known,
            repeated=saved.repeated,
        )

    def _tell_unusable(self, unusable: Counter[str]) -> None:
        """Warn of each reason why events are unusable when it comes up, and not again while it lasts."""
        for reason in (reason for reason in unusable if reason not in self._told):
            _log.warning(
                "events_unusable",
                code=_CODES.get(reason),
                setting=self._setting.name,
                events=unusable[reason],
                detail=reason,
            )
        self._told = frozenset(unusable)


def collection_of(
    setting: CollectionSetting, extractor: Extractor, answer: Payload | Portion, now: float, *, agent_name: str
) -> Collection:
    """Return what is to be saved of the answer to a poll that started at `now` (epoch seconds).

    Its events are made as they are asked for. Raises SourceUnreadable for an answer that is no JSON, also while they
    are made.
    """
    fetched_time = int(now)
    labels = Labels(
        setting_id=setting.id,
        setting_name=setting.name,
        fetched_time=fetched_time,
        end_time=fetched_time + setting.ttl_seconds,
        # Mails have none (protocol section 2.7), and only they come in portions.
        has_event_id=isinstance(answer, Payload),
    )
    collection = partial(Collection, setting_id=setting.id, agent_name=agent_name, labels=labels)
    if isinstance(answer, Portion):
        return collection(events=answer.events, moves_cursor=not answer.has_more, position=answer.position)
    extraction = extractor.extract(answer, now_microseconds=int(now * 1_000_000))
    return collection(events=extraction.events, moves_cursor=extraction.has_key, answer_bytes=len(answer.body))


def _counted(events: Iterable[Event], unusable: Counter[str]) -> Iterator[Event]:
    """Pass the events on, counting the unusable ones by reason."""
    for event in events:
        if event.unavailable is not None:
            unusable[event.unavailable] += 1
        yield event
