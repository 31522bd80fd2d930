"""The status page."""

from datetime import tzinfo

from ita_ag_oase.status import Status
from ita_ag_oase.text import Translations


def render(status: Status, translations: Translations, zone: tzinfo | None) -> str:
    """Return the page as HTML."""
    del translations, zone
    return f'<!doctype html><html lang="en"><title>OASE agent</title><h1>{status.phase}</h1></html>'
