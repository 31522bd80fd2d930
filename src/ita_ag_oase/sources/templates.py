"""URL, REQUEST_HEADER and PARAMETER as templates: rendered in a sandbox, within bounds, for each poll.

The names a template sees are those of protocol section 2.4. Rendering is pure: what changes comes in as arguments.
"""

import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.model import Cursor
from ita_ag_oase.text import Text, shorten, verbatim

if TYPE_CHECKING:
    from ita_ag_oase.sources.sandbox import Sandbox

# Characters of a library's own words in a message.
_WORDS = 200


class Template:
    """The text of one column, compiled. Raises SettingInvalid for a text that is no template, naming the column.

    `may_take_long` tells that rendering could use up its whole time, so that it belongs into a thread. jinja2 is loaded
    for what it has something to do with, so that an agent with plain texts alone keeps it out of its memory.
    """

    def __init__(self, text: str, *, column: str) -> None:
        self._column = column
        self._constant = None if any(mark in text for mark in ("{{", "{%", "{#")) else text
        self._uses_last_event = "EXASTRO_LAST_FETCHED_EVENT" in text
        self.may_take_long = False
        if self._constant is None:
            self._compile(text)

    def _compile(self, text: str) -> None:
        import jinja2

        try:
            self._compiled, self.may_take_long = _sandbox().compile_bounded(text)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as err:
            raise SettingInvalid(
                Text("{column} is no template ({error}): mend it in Exastro", column=self._column, error=str(err)),
                reason=Reason.TEMPLATE,
            ) from err

    def render(self, names: "TemplateNames") -> str:
        """Return the text for one poll. Raises SourceUnreadable, naming the column, for a template that fails."""
        if self._constant is not None:
            return self._constant
        return self._rendered(names.as_mapping(with_event=self._uses_last_event))

    def _rendered(self, names: Mapping[str, Any]) -> str:
        import jinja2
        from jinja2.exceptions import SecurityError

        from ita_ag_oase.sources.sandbox import BUDGET, Budget, LimitReached

        try:
            return self._compiled.render({**names, BUDGET: Budget()})
        except LimitReached as err:
            raise self._failed(err.text) from err
        except SecurityError as err:
            raise self._failed(
                Text("it asks for what the sandbox does not give: {error}", error=shorten(str(err), _WORDS))
            ) from err
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as err:
            raise self._failed(verbatim(shorten(f"{err.__class__.__name__}: {err}", _WORDS))) from err
        except (RecursionError, MemoryError) as err:
            raise self._failed(Text("it calls itself without end, or needs too much memory")) from err

    def _failed(self, why: Text) -> SourceUnreadable:
        return SourceUnreadable(
            Text("the template in {column} fails ({error})", column=self._column, error=why),
            reason=Reason.TEMPLATE,
        )


@functools.cache
def _sandbox() -> "Sandbox":
    from ita_ag_oase.sources.sandbox import Sandbox

    return Sandbox()


class TemplateNames:
    """The values of a poll's template variables: the cursor, the present moment, and the setting's own row."""

    def __init__(self, cursor: Cursor, row: Mapping[str, Any], *, last_fetched: datetime, current: datetime) -> None:
        self._cursor = cursor
        self._row = row
        self._last_fetched = last_fetched.replace(tzinfo=None)
        self._current = current.replace(tzinfo=None)

    def as_mapping(self, *, with_event: bool) -> dict[str, Any]:
        """Return the variables; the last event is decoded only where `with_event`."""
        event = self._last_event() if with_event else None
        return {
            "EXASTRO_LAST_FETCHED_TIMESTAMP": self._cursor.last_fetched_time,
            "EXASTRO_LAST_FETCHED_TIME": self._last_fetched,
            "EXASTRO_LAST_FETCHED_YY_MM_DD": self._last_fetched.strftime("%Y/%m/%d %H:%M:%S"),
            "EXASTRO_LAST_FETCHED_DD_MM_YY": self._last_fetched.strftime("%d/%m/%y %H:%M:%S"),
            "EXASTRO_CURRENT_TIME": self._current,
            "EXASTRO_LAST_FETCHED_EVENT_IS_EXIST": event is not None,
            "EXASTRO_LAST_FETCHED_EVENT": event,
            "EXASTRO_EVENT_COLLECTION_SETTING": dict(self._row),
        }

    def _last_event(self) -> Any:
        try:
            return json.loads(self._cursor.last_event or b"null")
        except ValueError:
            # The disk has changed it. As without one, the source is asked by the time.
            return None
