"""The log events that the code can emit, as its source tells."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import ita_ag_oase

_SOURCE = Path(ita_ag_oase.__file__).parent
_LEVELS = ("debug", "info", "warning", "error")
# What Troubles adds of its own.
_OF_FAILURE = frozenset({"code", "reason", "detail", "failures"})
_OF_RECOVERY = frozenset({"failures"})


class Emitted(NamedTuple):
    """An event at one place of the source.

    `facts` are the names given there; None stands for others that the source does not show. `code` is the one that is
    written there, if any.
    """

    event: str
    levels: tuple[str, ...]
    facts: frozenset[str | None]
    code: str | None
    place: str


def emitted() -> list[Emitted]:
    """Return what the source emits."""
    return [event for file in sorted(_SOURCE.rglob("*.py")) for event in _in_file(file)]


def _in_file(file: Path) -> Iterator[Emitted]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    chosen = _chosen_levels(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        place = f"{file.relative_to(_SOURCE).as_posix()}:{call.lineno}"
        yield from _of_log(call, chosen, place)
        yield from _of_troubles(call, place)


def _of_log(call: ast.Call, chosen: dict[str, tuple[str, ...]], place: str) -> Iterator[Emitted]:
    levels = _levels_of(call.func, chosen)
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if levels and texts:
        yield Emitted(str(texts[0]), levels, frozenset(word.arg for word in call.keywords), _code(call.keywords), place)


def _of_troubles(call: ast.Call, place: str) -> Iterator[Emitted]:
    if not isinstance(call.func, ast.Name) or call.func.id != "Troubles":
        return
    words = {word.arg: word.value for word in call.keywords}
    facts = frozenset(words) - {"failed", "recovered"}
    for name, levels, own in (("failed", ("warning", "error"), _OF_FAILURE), ("recovered", ("info",), _OF_RECOVERY)):
        event = words[name]
        assert isinstance(event, ast.Constant)
        yield Emitted(str(event.value), levels, facts | own, None, place)


def _levels_of(function: ast.expr, chosen: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(function, ast.Name):
        return chosen.get(function.id, ())
    if not isinstance(function, ast.Attribute):
        return ()
    if function.attr == "log":
        return _LEVELS
    return (function.attr,) if _is_log(function.value) and function.attr in _LEVELS else ()


def _chosen_levels(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Return the levels of names such as `tell = _log.info if ... else _log.debug`."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            levels = _levels_in(ast.walk(node.value))
            if levels:
                found[node.targets[0].id] = levels
    return found


def _levels_in(nodes: Iterable[ast.AST]) -> tuple[str, ...]:
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_log(node.value)}
    return tuple(level for level in _LEVELS if level in named)


def _is_log(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "_log"


def _code(keywords: Iterable[ast.keyword]) -> str | None:
    for word in keywords:
        if word.arg == "code" and isinstance(word.value, ast.Constant):
            return str(word.value.value)
    return None
