"""The files of the chart that are made from others: `make chart-golden` writes them, a test compares them.

The values of the whole chart are those of the agent's chart, one level deeper; the tables of the README and of the
manual, which has rows of its own for some values, are what the comments there say; the alerting rules are those of the
documents; the golden renderings are what helm makes of the shapes.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from helm import AGENT_CHART, CHART, template

VALUES = CHART / "values.yaml"
README = CHART / "README.md"
MANUAL = CHART.parent / "docs" / "kubernetes.md"
RULES = AGENT_CHART / "files" / "rules.yaml"

_FOLDER = Path(__file__).parent / "chart"
SHAPES = sorted((_FOLDER / "shapes").glob("*.yaml"))

_HEAD = """\
# Copy this file with `helm show values`, change what must be changed, and give it with `--values`. What is left out of
# your copy is as said here. This file is made from the values of the chart ita-ag-oase; the README explains each value.

global:
  agentGlobalDefinition:
    # -- Without effect, as before.
    name: agent-global
    # -- Without effect, as before.
    enabled: true
    image:
      # -- The registry of the agent's image.
      registry: docker.io
      # -- The organization in the registry.
      organization: exastro
      # -- The beginning of the image's name; -ag-oase is added.
      package: exastro-it-automation

ita-ag-oase:
"""
_BEGIN, _END = "<!-- parameters: made by `make chart-golden` -->\n", "<!-- end of parameters -->"

_DESCRIPTION = re.compile(r" *# -- (.*)")
_UNSET_KEY = re.compile(r"( *)# (\w+):(?: .*)?")
_MORE = re.compile(r" *# (.*)")
_KEY = re.compile(r"( *)(- )?([\w-]+):.*")


class Parameter(NamedTuple):
    """A value of the chart: its path from the root, its default as JSON (None where it is unset), what it does."""

    path: str
    default: str | None
    description: str


def parameters() -> list[Parameter]:
    """Return what the comments of the values say, in their order."""
    text = _values()
    defaults = yaml.safe_load(text)
    return [
        Parameter(path, None if is_unset else json.dumps(_at(defaults, path)), description)
        for path, description, is_unset in _described(text)
        if description
    ]


def undescribed() -> list[str]:
    """Return the paths of values that no comment speaks of, neither of them nor of what they belong to."""
    told = {parameter.path for parameter in parameters()}
    keys = [path for path, _, is_unset in _described(_values()) if not is_unset]
    ends = [path for path in keys if not any(other.startswith((f"{path}.", f"{path}[")) for other in keys)]
    return [path for path in ends if not any(path == name or path.startswith(f"{name}.") for name in told)]


def made() -> dict[Path, str]:
    """Return the text of each file that is made from others."""
    golden = {_FOLDER / "golden" / shape.name: _golden(shape) for shape in SHAPES}
    pages = {README: _with_table(README, _rows(parameters())), MANUAL: _with_table(MANUAL, _rows(_further()))}
    return {VALUES: _values(), RULES: _rules(), **pages, **golden}


def _values() -> str:
    lines = (AGENT_CHART / "values.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    # The first paragraph is about that file alone.
    return _HEAD + textwrap.indent("".join(lines[lines.index("\n") + 1 :]), "  ")


def _rules() -> str:
    rules = (CHART.parent / "docs" / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    return f"# Made from docs/prometheus/rules.yaml by `make chart-golden`.\n{rules}"


def _described(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each key's path, what the comment before it says, and whether it stands in a comment."""
    above: list[tuple[int, str]] = []
    description: list[str] = []
    for line in text.splitlines():
        if begin := _DESCRIPTION.fullmatch(line):
            description = [begin[1]]
        elif description and (unset := _UNSET_KEY.fullmatch(line)):
            yield _path(above, len(unset[1]), unset[2]), " ".join(description), True
            description = []
        elif description and (more := _MORE.fullmatch(line)):
            description.append(more[1])
        elif key := _KEY.fullmatch(line):
            indent = len(key[1]) + len(key[2] or "")
            path = _path(above, indent, key[3], is_item=bool(key[2]))
            yield path, " ".join(description), False
            description = []


def _path(above: list[tuple[int, str]], indent: int, key: str, *, is_item: bool = False) -> str:
    while above and above[-1][0] >= indent:
        above.pop()
    if is_item:
        above[-1] = (above[-1][0], f"{above[-1][1]}[]")
    above.append((indent, key))
    return ".".join(name for _, name in above)


def _at(values: Any, path: str) -> Any:
    for step in path.split("."):
        values = values[step.removesuffix("[]")]
        if step.endswith("[]"):
            values = values[0]
    return values


def _further() -> list[Parameter]:
    """Return what the manual has no row of its own for, as it spells paths."""
    own = re.findall(r"^\| `([\w.-]+)`", MANUAL.read_text(encoding="utf-8").partition(_BEGIN)[0], re.MULTILINE)
    told = [parameter._replace(path=parameter.path.replace("[]", "")) for parameter in parameters()]
    return [parameter for parameter in told if not any(f"{row}.".startswith(f"{parameter.path}.") for row in own)]


def _with_table(page: Path, rows: str) -> str:
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(_BEGIN)], text[text.index(_END) :]
    return f"{before}{_BEGIN}\n| Value | Default | What it does |\n|---|---|---|\n{rows}\n{after}"


def _rows(told: list[Parameter]) -> str:
    rows = []
    for parameter in told:
        has_parts = any(other.path.startswith((f"{parameter.path}.", f"{parameter.path}[")) for other in told)
        default = "unset" if parameter.default is None else "" if has_parts else f"`{parameter.default}`"
        rows.append(f"| `{parameter.path}` | {default} | {parameter.description} |\n")
    return "".join(rows)


def _golden(shape: Path) -> str:
    return template(yaml.safe_load(shape.read_text(encoding="utf-8"))).out


if __name__ == "__main__":
    # The values first: the renderings are made from them.
    VALUES.write_text(_values(), encoding="utf-8")
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
