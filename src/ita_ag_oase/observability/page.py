"""The status page."""

from collections.abc import Mapping
from datetime import tzinfo

from ita_ag_oase.status import Status
from ita_ag_oase.text import Translations

# Where the same page stands still, relative to the page that refreshes itself.
STILL_PATH = "still"


def render(status: Status, translations: Translations, zone: tzinfo | None, *, refreshes: bool = True) -> str:
    """Return the page as HTML."""
    del translations, zone, refreshes
    return f'<!doctype html><html lang="en"><title>OASE agent</title><h1>{status.phase}</h1></html>'


def headers(*, refreshes: bool = True) -> Mapping[str, str]:
    """Return what to send with the page."""
    del refreshes
    return {"Content-Type": "text/html; charset=utf-8"}
