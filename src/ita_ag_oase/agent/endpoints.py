"""What the status server answers with: two probes, the metrics, the status as JSON, and the status page."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import msgspec
import structlog

from ita_ag_oase import clock
from ita_ag_oase.agent.overview import Overview
from ita_ag_oase.errors import StatusServerFailed
from ita_ag_oase.observability.health import Counts
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.observability.status_server import STILL_PATH, Answer, Route, StatusServer
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import Phase, Status, Trouble
from ita_ag_oase.text import Text, counted, verbatim

_log = structlog.get_logger()

# Longer than any work of the store takes on a slow disk, since who is not alive is killed.
_SILENCE_SECONDS = 60.0
# Who has the port may let go of it.
_TRY_AGAIN_SECONDS = 60.0


@asynccontextmanager
async def serve_status(settings: Settings, overview: Overview, redactor: Redactor) -> AsyncIterator[None]:
    """Serve the status page meanwhile, unless it is turned off; where it cannot be served, go on and try again."""
    if not settings.status_port:
        yield
        return
    server = StatusServer(Endpoints(settings, overview, redactor).routes)
    opening = asyncio.create_task(_open(server, settings), name="status server")
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.wait([opening])
        await server.close()


async def _open(server: StatusServer, settings: Settings) -> None:
    address, port = settings.status_address, settings.status_port
    has_told = False
    while True:
        try:
            await server.open(address, port)
        except StatusServerFailed as err:
            if not has_told:
                _log.error("status_server_failed", reason=err.reason, detail=err.text)
            has_told = True
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        else:
            break
    host = f"[{address}]" if ":" in address else address
    _log.info("status_server_started", url=f"http://{host}:{port}/")


class Endpoints:
    """The routes of the status server."""

    def __init__(self, settings: Settings, overview: Overview, redactor: Redactor) -> None:
        self._overview = overview
        self._redactor = redactor
        self._translations = translations(settings.message_language)
        self._zone = clock.zone(settings.tz)

    @property
    def routes(self) -> Mapping[str, Route]:
        """What answers for each path."""
        return {
            "/": partial(self._page, refreshes=True),
            f"/{STILL_PATH}": partial(self._page, refreshes=False),
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status.json": self._status,
        }

    async def _livez(self, _: str) -> Answer:
        silence = await self._overview.store_silence_seconds()
        if silence <= _SILENCE_SECONDS:
            return self._line(None)
        return self._line(
            Text("the store has not answered for {seconds} seconds: check its volume", seconds=round(silence))
        )

    async def _readyz(self, _: str) -> Answer:
        missing = _what_is_missing(self._overview)
        election = self._overview.health.election
        if missing is not None or election is None:
            return self._line(missing)
        return Answer(b"ok: leader\n" if election.is_leader else b"ok: standby\n")

    async def _metrics(self, accept: str) -> Answer:
        status, counts = await self._overview.status(), self._overview.counts
        body, content_type = await asyncio.to_thread(_exposition, status, counts, accept)
        return Answer(body, {"Content-Type": content_type})

    async def _status(self, _: str) -> Answer:
        status = await self._overview.status()
        return Answer(await asyncio.to_thread(self._as_json, status), {"Content-Type": "application/json"})

    async def _page(self, _: str, *, refreshes: bool) -> Answer:
        status = await self._overview.status()
        return await asyncio.to_thread(self._as_html, status, refreshes=refreshes)

    def _as_json(self, status: Status) -> bytes:
        return msgspec.json.encode(self._told(status), enc_hook=str)

    def _as_html(self, status: Status, *, refreshes: bool) -> Answer:
        # An agent whose page nobody looks at keeps jinja2 out of its memory.
        from ita_ag_oase.observability import page

        body = page.render(self._told(status), self._translations, self._zone, refreshes=refreshes)
        return Answer(body.encode(), page.headers(refreshes=refreshes))

    def _line(self, problem: Text | None) -> Answer:
        if problem is None:
            return Answer(b"ok\n")
        return Answer(f"{problem.told(self._translations)}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _told(self, status: Status) -> Status:
        """Return a status whose troubles are told in the configured language and without secrets."""
        sources = (dataclasses.replace(each, trouble=self._told_trouble(each.trouble)) for each in status.sources)
        exastro, store, election = status.exastro, status.store, status.election
        return dataclasses.replace(
            status,
            sources=tuple(sources),
            exastro=dataclasses.replace(exastro, trouble=self._told_trouble(exastro.trouble)),
            store=dataclasses.replace(store, trouble=self._told_trouble(store.trouble)) if store else None,
            election=dataclasses.replace(election, trouble=self._told_trouble(election.trouble)) if election else None,
        )

    def _told_trouble(self, trouble: Trouble | None) -> Trouble | None:
        if trouble is None:
            return None
        detail = self._redactor.redact(trouble.detail.told(self._translations))
        return dataclasses.replace(trouble, detail=verbatim(detail))


def _exposition(status: Status, counts: Counts, accept: str) -> tuple[bytes, str]:
    # An agent that nobody scrapes keeps prometheus_client out of its memory.
    from ita_ag_oase.observability import metrics

    return metrics.exposition(metrics.Known(status, counts), accept)


def _what_is_missing(overview: Overview) -> Text | None:
    """Return why the agent is not ready; None where it is."""
    health = overview.health
    if health.is_ready:
        return None
    if health.phase is not Phase.RUNNING:
        return _PHASES[health.phase]
    unfinished = health.unfinished_first_polls
    if unfinished is None:
        return Text("the settings are not known yet: Exastro has not told them, and none are kept")
    return counted(
        "the first poll of {count} source has not ended yet",
        "the first polls of {count} sources have not ended yet",
        count=unfinished,
    )


_PHASES = {
    Phase.STARTING: Text("the agent is starting"),
    Phase.WAITING_FOR_STORE: Text("another agent uses the store: this one takes over when that one ends"),
    Phase.STOPPING: Text("the agent is stopping"),
}
