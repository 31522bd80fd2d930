"""The status page of each state and language, served on loopback as the agent serves it."""

from zoneinfo import ZoneInfo

from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.page import headers, render
from ita_ag_oase.observability.status_server import STILL_PATH
from statuses import STATES

_TOKYO = ZoneInfo("Asia/Tokyo")


def serving() -> LoopbackServer:
    """Return a server whose pages are where `address` says."""
    return LoopbackServer(_answer)


def address(server: LoopbackServer, state: str, language: str) -> str:
    """Return the URL of the page that refreshes itself, for a state's name and a language."""
    return f"{server.url}/{state}/{language}/"


def _answer(request: Request) -> Reply:
    _, state, language, rest = request.path.split("/")
    if request.method != "GET" or rest not in ("", STILL_PATH):
        return Reply(status=404)
    refreshes = rest == ""
    body = render(STATES[state], translations(language), _TOKYO, refreshes=refreshes).encode()
    fields = dict(headers(refreshes=refreshes))
    return Reply(body=body, content_type=fields.pop("Content-Type"), headers=fields)
