"""A Jinja2 sandbox in which nothing can run or grow beyond its bounds, whatever a template says."""

import functools
import re
import time
from collections.abc import Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ita_ag_oase.text import Text

MAX_SECONDS = 1.0
MAX_CHARACTERS = 1_048_576
# What all steps of one rendering may make together, and the most that one step may try to make.
_MAX_TOTAL = 16 * MAX_CHARACTERS
_MAX_PRODUCT = 64 * MAX_CHARACTERS
# Nothing that a template can walk through is longer: the sandbox bounds its ranges so.
_RANGE = 100_000

# What makes as much text as a number among its arguments says.
_WIDENING = frozenset(
    {"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "to_bytes", "tojson", "zfill"}
)
_PERCENT_FIELD = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\d+|\*)?(?:\.(\d+|\*))?")
_BRACE_FIELD = re.compile(r"\{([^{}]*)(\{?)")
_DIGITS = re.compile(r"\d+")
_FORMATS = frozenset({"%", "format", "str.format"})
_TEXTS = (str, bytes, bytearray)
_LISTS = (list, tuple, set, frozenset)
# No template can name a variable so.
BUDGET = "what this rendering may use"


class LimitReached(Exception):
    """A template ran for too long, or made too much."""

    def __init__(self, text: Text) -> None:
        super().__init__(str(text))
        self.text = text


def _too_much() -> LimitReached:
    return LimitReached(Text("it makes more than {limit} characters", limit=MAX_CHARACTERS))


def _size(value: Any) -> int:
    """Return how many characters a value stands for, counted no further than the bound."""
    size, pending = 0, [value]
    while pending and size <= MAX_CHARACTERS:
        part = pending.pop()
        if isinstance(part, _TEXTS):
            size += len(part)
        elif isinstance(part, _LISTS):
            size += len(part)
            pending += part
        elif isinstance(part, dict):
            size += len(part)
            pending += part
            pending += part.values()
        elif isinstance(part, Namespace):
            pending.append(object.__getattribute__(part, "_Namespace__attrs"))
        else:
            size += 1 + (part.bit_length() // 3 if isinstance(part, int) else 0)
    return size


def _length(value: Any) -> int:
    """Return the size of what a step works on; what is walked through without being there counts as long."""
    return _RANGE if isinstance(value, range | Iterator) else _size(value)


def _width(name: str, text: str) -> int:
    """Return the greatest width in a format; one that an argument gives counts as too great."""
    if name == "str.format":
        fields = [
            (field.partition(":")[2], "*" if ":" in field and inner else "")
            for field, inner in _BRACE_FIELD.findall(text)
        ]
        widths = [width for spec, inner in fields for width in (*_DIGITS.findall(spec), inner)]
    else:
        widths = [width for field in _PERCENT_FIELD.findall(text) for width in field]
    return max((int(width[:9]) if width.isdecimal() else _MAX_PRODUCT for width in widths if width), default=0)


class Budget:
    """What one rendering may still use: time, and characters made on the way to its text."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_SECONDS
        self._left = _MAX_TOTAL

    def look(self) -> None:
        """Raise once the time is over."""
        if time.thread_time() > self._deadline:
            raise LimitReached(Text("it runs for more than {seconds:g} s", seconds=MAX_SECONDS))

    def check(self, name: str, value: Any, arguments: tuple[Any, ...]) -> None:
        """Raise where a step could make far more than what it is given, before it does."""
        self.look()
        size, *sizes = map(_length, (value, *arguments))
        factor = 1 + sum(sizes)
        if name in _WIDENING:
            factor += sum(abs(argument) for argument in arguments if isinstance(argument, int))
        if name in _FORMATS and isinstance(value, str):
            factor += _width(name, value)
        if max(size, *sizes, 0) > MAX_CHARACTERS or size * factor > _MAX_PRODUCT:
            raise _too_much()

    def spend(self, value: Any) -> Any:
        """Return the value that a step made. Raises where it is too large, or too much together with the others."""
        self.look()
        size = _size(value)
        self._left -= size
        if size > MAX_CHARACTERS or self._left < 0:
            raise _too_much()
        return value


def _budget(context: Context) -> Budget:
    # Not looked up as a variable, which a template could set.
    budget: Budget = context.parent[BUDGET]
    return budget


@jinja2.pass_context
def _finalize(context: Context, value: Any) -> Any:
    return _budget(context).spend(value)


def _join(parts: Any) -> str:
    size, kept = 0, []
    for part in parts:
        size += len(part)
        kept.append(part)
        if size > MAX_CHARACTERS:
            raise _too_much()
    return "".join(kept)


class Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which no loop, product or text grows beyond its bounds."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])
    concat = staticmethod(_join)

    def __init__(self) -> None:
        super().__init__(autoescape=False, keep_trailing_newline=True, finalize=_finalize)
        # Makes filler text, any amount of it.
        del self.globals["lipsum"]
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}

    def compile_bounded(self, text: str) -> tuple[jinja2.Template, bool]:
        """Return a template that keeps to its budget, and whether rendering it could use that up.

        Raises jinja2.TemplateError, and what Python's own compiler and numbers raise beyond their limits.
        """
        tree = self.parse(text)
        may_take_long = any(tree.find(kind) for kind in (nodes.For, nodes.Macro, nodes.Call, nodes.Mul))
        return self.from_string(_Bounds().visit(tree)), may_take_long

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return what a sum, product, power or `%` makes, within bounds."""
        budget = _budget(context)
        if operator == "*":
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(sized, "__len__") and isinstance(times, int) and _size(sized) * times > MAX_CHARACTERS:
                raise _too_much()
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**64):
            raise LimitReached(Text("its numbers grow too large"))
        if operator == "%" and isinstance(left, _TEXTS):
            budget.check("%", left if isinstance(left, str) else bytes(left).decode("latin-1"), (right,))
        return budget.spend(super().call_binop(context, operator, left, right))

    def call(self, __context: Context, __obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return what a call makes, within bounds."""
        budget = _budget(__context)
        # What the sandbox puts before str.format knows it as wrapped.
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            name = "str.format" if method.__name__ in ("format", "format_map") else method.__name__
            budget.check(name, owner, (*args, *kwargs.values()))
        budget.look()
        return budget.spend(super().call(__context, __obj, *args, **kwargs))

    def same(self, value: Any) -> Any:
        """Return the value; being called, it is measured."""
        return value

    def concatenated(self, *parts: Any) -> str:
        """Return the parts as one text."""
        if sum(map(_size, parts)) > MAX_CHARACTERS:
            raise _too_much()
        return _join(map(str, parts))


def _guarded(name: str, function: Any) -> Any:
    """Return a filter that keeps to the budget of the rendering."""
    # What it wants to be handed before the value: the context, the environment, or how to escape.
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @jinja2.pass_context
    @functools.wraps(function)
    def guard(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        budget.check(name, value, (*args, *kwargs.values()))
        known = {"context": context, "environment": context.environment, "eval_context": context.eval_ctx}
        before = (known[wanted],) if wanted else ()
        return budget.spend(function(*before, value, *args, **kwargs))

    return guard


class _Bounds(NodeTransformer):
    """Has every turn of a loop look at the clock, and every value that is written out measured."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named by the library
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("same", [nodes.Const(None)]), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("concatenated", node.nodes)

    def visit_List(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("same", [node]) if getattr(node, "ctx", "load") == "load" else node

    visit_Tuple = visit_Dict = visit_List  # noqa: N815


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    lineno = arguments[0].lineno or 1
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None, lineno=lineno)
