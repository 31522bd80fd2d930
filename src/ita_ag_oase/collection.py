"""One setting, once: cursor, fetch, extract, save. A step without a loop."""

import structlog

from ita_ag_oase import clock
from ita_ag_oase.events.extract import Extraction, Extractor
from ita_ag_oase.model import Collection, CollectionSetting, Labels, Payload, Saved
from ita_ag_oase.sources.source import Source
from ita_ag_oase.store.store import Store

_log = structlog.get_logger()


class Collector:
    """Polls one setting's source and saves what is new. Raises SettingInvalid for keys that are no JMESPath."""

    def __init__(self, setting: CollectionSetting, source: Source, store: Store, *, agent_name: str) -> None:
        self._setting = setting
        self._source = source
        self._store = store
        self._agent_name = agent_name
        self._extractor = Extractor.of(setting)

    async def collect(self) -> Saved:
        """Poll once and return how many events were new.

        New events, the ids of all, and the advanced cursor are saved together. Raises the errors of sources and store;
        then nothing is saved and the next poll asks from the same time.
        """
        self._store.require_room()
        now = clock.now()
        cursor = await self._store.cursor(self._setting.id)
        _log.debug("collection_started", code="AGT-10011", setting=self._setting.name)
        payload = await self._source.fetch(cursor, now)
        collection = self._read(payload, now)
        saved = await self._store.save(collection)
        self._tell(saved, has_key=collection.moves_cursor)
        return saved

    def _read(self, payload: Payload, now: float) -> Collection:
        fetched_time = int(now)
        extraction: Extraction = self._extractor.extract(payload, now_microseconds=int(now * 1_000_000))
        labels = Labels(
            setting_id=self._setting.id,
            setting_name=self._setting.name,
            fetched_time=fetched_time,
            end_time=fetched_time + self._setting.ttl_seconds,
        )
        return Collection(
            setting_id=self._setting.id,
            agent_name=self._agent_name,
            labels=labels,
            events=extraction.events,
            moves_cursor=extraction.has_key,
        )

    def _tell(self, saved: Saved, *, has_key: bool) -> None:
        facts = {"setting": self._setting.name, "new": saved.new, "known": saved.known, "repeated": saved.repeated}
        if not has_key and saved.new:
            _log.warning(
                "response_key_not_found",
                code="AGT-10002",
                **facts,
                action="the answer was not the expected one: check RESPONSE_KEY and what the source says",
            )
        elif saved.new:
            _log.info("collection_finished", code="AGT-10012", **facts)
        else:
            _log.debug("collection_finished", code="AGT-10012", **facts)
