"""URL, REQUEST_HEADER and PARAMETER as templates: rendered in a sandbox, within bounds, for each poll.

The names a template sees are those of protocol section 2.4. Rendering is pure: what changes comes in as arguments.
"""

import functools
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.model import Cursor

MAX_SECONDS = 1.0
MAX_CHARACTERS = 1_048_576

_WIDE_FORMAT = re.compile(r"[%:][^%{}a-zA-Z]*(\d{5,}|\*)")
_WIDENING_FILTERS = (
    "batch",
    "center",
    "format",
    "indent",
    "join",
    "replace",
    "tojson",
    "urlize",
    "wordwrap",
    "xmlattr",
)
_DEADLINE = "_deadline"


class _LimitReached(Exception):
    """A template ran for too long, or made too much."""


def _too_much() -> _LimitReached:
    return _LimitReached(f"it makes more than {MAX_CHARACTERS} characters")


def _bounded(value: Any) -> Any:
    if hasattr(value, "__len__") and len(value) > MAX_CHARACTERS:
        raise _too_much()
    return value


def _join(parts: Any) -> str:
    size, kept = 0, []
    for part in parts:
        size += len(part)
        kept.append(part)
        if size > MAX_CHARACTERS:
            raise _too_much()
    return "".join(kept)


def _check_widening(name: str, text: Any, values: tuple[Any, ...]) -> None:
    """Refuse what would make far more text out of `text` than there is, before it is made."""
    if any(isinstance(value, int) and value > MAX_CHARACTERS for value in values):
        raise _too_much()
    if name == "format" and _WIDE_FORMAT.search(str(text)):
        raise _too_much()
    if name == "replace" and len(values) > 1 and len(str(text)) * len(str(values[1])) > 64 * MAX_CHARACTERS:
        raise _too_much()


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which no loop, product or text grows beyond its bounds."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])
    concat = staticmethod(_join)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            sizes = [len(side) for side in (left, right) if hasattr(side, "__len__")]
            times = [side for side in (left, right) if isinstance(side, int)]
            if sizes and times and sizes[0] * times[0] > MAX_CHARACTERS:
                raise _too_much()
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**64):
            raise _LimitReached("its numbers grow too large")
        if operator == "%" and isinstance(left, str):
            _check_widening("format", left, ())
        return _bounded(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse a wide format of `str.format`, which the sandbox wraps before it is called."""
        if isinstance(text := getattr(value, "__self__", None), str) and getattr(value, "__name__", "") == "format":
            _check_widening("format", text, ())
        return super().wrap_str_format(value)

    def call(self, __context: Any, __obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        __context.resolve(_DEADLINE)()
        if isinstance(text := getattr(__obj, "__self__", None), str):
            _check_widening(__obj.__name__, text, args)
        return _bounded(super().call(__context, __obj, *args, **kwargs))


def _environment() -> _Environment:
    environment = _Environment(autoescape=False, keep_trailing_newline=True)
    for name in _WIDENING_FILTERS:
        environment.filters[name] = _guarded(name, environment.filters[name])
    return environment


def _guarded(name: str, filter_: Any) -> Any:
    # Some filters are handed the environment or its context before the value.
    first = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @functools.wraps(filter_)
    def guard(*args: Any, **kwargs: Any) -> Any:
        _check_widening(name, args[first], (*args[first + 1 :], *kwargs.values()))
        return _bounded(filter_(*args, **kwargs))

    return guard


class Template:
    """The text of one column, compiled. Raises SettingInvalid for a text that is no template, naming the column.

    `may_take_long` tells that rendering could use up its whole time, so that it belongs into a thread.
    """

    _shared = _environment()

    def __init__(self, text: str, *, column: str) -> None:
        self._column = column
        self._constant = None if any(mark in text for mark in ("{{", "{%", "{#")) else text
        self._uses_last_event = "EXASTRO_LAST_FETCHED_EVENT" in text
        try:
            tree = self._shared.parse(text)
            self.may_take_long = bool(tree.find(nodes.For) or tree.find(nodes.Macro))
            _add_deadlines(tree)
            _bound_concatenations(tree)
            self._compiled = self._shared.from_string(tree)
        except (jinja2.TemplateError, RecursionError) as err:
            raise SettingInvalid(
                f"{column} is no template ({err}): mend it in Exastro", reason=Reason.TEMPLATE
            ) from err

    def render(self, names: "TemplateNames") -> str:
        """Return the text for one poll. Raises SourceUnreadable, naming the column, for a template that fails."""
        if self._constant is not None:
            return self._constant
        deadline = time.monotonic() + MAX_SECONDS

        def check() -> str:
            if time.monotonic() > deadline:
                raise _LimitReached(f"it runs for more than {MAX_SECONDS:g} s")
            return ""

        try:
            return self._compiled.render(names.as_mapping(with_event=self._uses_last_event), **{_DEADLINE: check})
        except _LimitReached as err:
            raise self._failed(str(err)) from err
        except SecurityError as err:
            raise self._failed(f"it asks for what the sandbox does not give: {err}") from err
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as err:
            raise self._failed(f"{err.__class__.__name__}: {err}") from err
        except (RecursionError, MemoryError) as err:
            raise self._failed("it calls itself without end, or needs too much memory") from err

    def _failed(self, why: str) -> SourceUnreadable:
        return SourceUnreadable(f"the template in {self._column} fails ({why[:200]})", reason=Reason.TEMPLATE)


def _add_deadlines(tree: nodes.Template) -> None:
    """Add a look at the clock to every turn of every loop."""
    for loop in tree.find_all(nodes.For):
        look = nodes.Call(nodes.Name(_DEADLINE, "load"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(look).set_lineno(loop.lineno))


def _bound_concatenations(parent: nodes.Node) -> None:
    """Turn every `a ~ b` into a sum of texts, which is bounded."""
    for name, value in list(parent.iter_fields()):
        if isinstance(value, nodes.Concat):
            setattr(parent, name, _sum(value))
        elif isinstance(value, list):
            setattr(parent, name, [_sum(item) if isinstance(item, nodes.Concat) else item for item in value])
    for child in parent.iter_child_nodes():
        _bound_concatenations(child)


def _sum(concat: nodes.Concat) -> nodes.Expr:
    texts = [nodes.Filter(part, "string", [], [], None, None, lineno=concat.lineno) for part in concat.nodes]
    total: nodes.Expr = texts[0]
    for text in texts[1:]:
        total = nodes.Add(total, text, lineno=concat.lineno)
    return total


class TemplateNames:
    """The values of a poll's template variables: the cursor, the present moment, and the setting's own row."""

    def __init__(self, cursor: Cursor, row: Mapping[str, Any], *, last_fetched: datetime, current: datetime) -> None:
        self._cursor = cursor
        self._row = row
        self._last_fetched = last_fetched.replace(tzinfo=None)
        self._current = current.replace(tzinfo=None)

    def as_mapping(self, *, with_event: bool) -> dict[str, Any]:
        """Return the variables; the last event is decoded only where `with_event`."""
        event = self._cursor.last_event if with_event else None
        return {
            "EXASTRO_LAST_FETCHED_TIMESTAMP": self._cursor.last_fetched_time,
            "EXASTRO_LAST_FETCHED_TIME": self._last_fetched,
            "EXASTRO_LAST_FETCHED_YY_MM_DD": self._last_fetched.strftime("%Y/%m/%d %H:%M:%S"),
            "EXASTRO_LAST_FETCHED_DD_MM_YY": self._last_fetched.strftime("%d/%m/%y %H:%M:%S"),
            "EXASTRO_CURRENT_TIME": self._current,
            "EXASTRO_LAST_FETCHED_EVENT_IS_EXIST": self._cursor.last_event is not None,
            "EXASTRO_LAST_FETCHED_EVENT": msgspec.json.decode(event) if event is not None else None,
            "EXASTRO_EVENT_COLLECTION_SETTING": dict(self._row),
        }
