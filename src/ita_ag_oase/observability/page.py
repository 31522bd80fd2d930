"""The status page: one HTML page that is complete in itself, without scripts and without anything from elsewhere.

Whatever is told in it passes through the catalogue and is escaped. Its looks are page.html and page.css.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from ita_ag_oase.observability.panels import Times, panels, rows
from ita_ag_oase.observability.status_server import STILL_PATH
from ita_ag_oase.observability.verdict import Level, judge
from ita_ag_oase.status import Status
from ita_ag_oase.text import Text, Translations, counted

REFRESH_SECONDS = 30
_FOLDER = Path(__file__).parent
STYLE = (_FOLDER / "page.css").read_text(encoding="utf-8")

# As many as can be taken in at a glance; the table has them all.
_SHOWN_NAMES = 5
_CODE = re.compile(r"`([^`]+)`")
# What HTML does not allow, and what UTF-8 has no bytes for.
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# Each has an outline of its own, so that nobody needs to see its colour. In a square of 16.
_DISC = "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0Z"
_SHAPES = {
    Level.GOOD: f"{_DISC}M12.6 6 7 11.7 3.6 8.4 4.9 7 7 9.1 11.2 4.7Z",
    Level.WAITING: f"{_DISC}M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2ZM7.1 4v4.6l3 2.4 1.1-1.4L8.9 7.7V4Z",
    Level.DOUBTFUL: "M8 .6 16 15.2H0ZM7.1 5.6v5h1.8v-5ZM7.1 11.7v1.8h1.8v-1.8Z",
    Level.BAD: "M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7Z"
    "M5.2 3.8 3.8 5.2 6.6 8l-2.8 2.8 1.4 1.4L8 9.4l2.8 2.8 1.4-1.4L9.4 8l2.8-2.8-1.4-1.4L8 6.6Z",
}
# For the browser's tab, which no style reaches: they can be seen on light and on dark.
_TAB_COLOURS = {Level.GOOD: "#2a9d5c", Level.WAITING: "#4a8fd0", Level.DOUBTFUL: "#c98a00", Level.BAD: "#d9413a"}

_WORDS: Mapping[str, Text] = {
    # The catalogue says the code of its own language (BCP 47).
    "language": Text("en"),
    "product": Text("Exastro OASE agent"),
    "refreshes": Text("Refreshes itself every {count} s.", count=REFRESH_SECONDS),
    "stop": Text("Stop"),
    "stands_still": Text("Does not refresh itself."),
    "go_on": Text("Start"),
    "parts": Text("At a glance"),
    "source": Text("Source"),
    "state": Text("State"),
    "mail": Text("mail"),
    "last_success": Text("Last success"),
    "last_event": Text("Last event"),
    "lag": Text("Lag"),
    "since_start": Text("Events since the start"),
    "in_all": Text("Events in all"),
    "legend": Text(
        "New, known and unusable events are counted since the agent's start, the others since the store was made."
    ),
    "last_error": Text("Last error:"),
    "latest": Text("latest"),
    "none": Text("none"),
    "none_yet": Text("none yet"),
    "no_sources": Text("Here is a line for each source, once the settings are known."),
    "zone": Text("Times are in {zone}."),
    "for_programs": Text("For programs:"),
}


def render(status: Status, translations: Translations, zone: tzinfo | None, *, refreshes: bool = True) -> str:
    """Return the page in the language of `translations`, with times in `zone` (None: the system's).

    `refreshes` tells whether it says that it refreshes itself; that it does so is up to `headers`.
    """
    times = Times(status.now, zone)
    verdict = judge(status)
    page = _template().render(
        translations=translations,
        words={**_WORDS, "zone": _WORDS["zone"].about(zone=times.present.tzname())},
        style=Markup(STYLE),  # noqa: S704 - our own file
        icon=_icon(verdict.level),
        shapes=_SHAPES,
        status=status,
        present=times.present,
        verdict=verdict,
        shown_names=_SHOWN_NAMES,
        more=lambda count: counted("and {count:,} more", "and {count:,} more", count=count),
        panels=panels(status, verdict.findings, times),
        rows=rows(status.sources, times),
        refreshes=refreshes,
        still_path=STILL_PATH,
    )
    return _UNSHOWABLE.sub("\ufffd", page)


def headers(*, refreshes: bool = True) -> Mapping[str, str]:
    """Return what to send with the page: how browsers shall treat it, and whether they fetch it anew by and by."""
    policy = {
        "default-src": "'none'",
        "style-src": f"'{style_hash()}'",
        "img-src": "data:",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    common = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    # Not in the page itself: a copy that was saved or mailed must not go looking for the agent.
    return common | ({"Refresh": str(REFRESH_SECONDS)} if refreshes else {})


def style_hash() -> str:
    """Return what a Content-Security-Policy knows the page's style by (CSP level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}"


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_told,
    )
    environment.filters["prose"] = _prose
    return environment.get_template("page.html")


@pass_context
def _told(context: Context, value: Any) -> Any:
    return value.told(context["translations"]) if isinstance(value, Text) else value


@pass_context
def _prose(context: Context, text: Text) -> Markup:
    """Return a sentence in which what stands between backticks looks like code."""
    told = str(escape(text.told(context["translations"])))
    return Markup(_CODE.sub(r"<code>\1</code>", told))  # noqa: S704 - it is escaped


def _icon(level: Level) -> str:
    path = f"<path fill='{_TAB_COLOURS[level]}' fill-rule='evenodd' d='{_SHAPES[level]}'/>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>{path}</svg>"
    return f"data:image/svg+xml,{quote(svg)}"
