"""The pages of the manual as what tests can work with: examples, commands, tables.

Fences and tables may stand in a list, indented.
"""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "docs" / "kubernetes.md"
COMPOSE = ROOT / "docs" / "compose.md"
AVAILABILITY = ROOT / "docs" / "high-availability.md"
# The values files of the page about availability.
PATTERNS = sorted(path for path in (ROOT / "docs" / "examples").glob("*.yaml") if path.stem != "nfs-volume")
NFS_VOLUME = ROOT / "docs" / "examples" / "nfs-volume.yaml"

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """What stands in a fence: its language, its text without the fence's indent."""

    language: str
    text: str


def examples(text: str) -> list[Example]:
    """Return what stands in the fences of a text, in order."""
    return [Example(language, textwrap.dedent(body)) for _, language, body in _FENCE.findall(text)]


def section(page: Path, heading: str) -> str:
    """Return what stands below a heading, down to the next one. Raises ValueError where there is none."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"no section {heading!r} in {page}")
    return found[1]


def files(page: Path) -> dict[str, list[str]]:
    """Return the files that a page shows, by the name in their first line; one name may have several contents."""
    found: dict[str, list[str]] = {}
    for example in examples(page.read_text(encoding="utf-8")):
        if example.language == "yaml":
            found.setdefault(example.text.partition("\n")[0].removeprefix("# "), []).append(example.text)
    return found


def commands(page: Path, program: str) -> list[str]:
    """Return the commands of a page that call a program, in order, each on one line but for texts in quotes."""
    shell = "".join(example.text for example in examples(page.read_text(encoding="utf-8")) if example.language == "sh")
    lines = re.findall(r"^((?:'[^']*'|[^'\n])+)$", shell.replace("\\\n", " "), re.MULTILINE)
    return [line for line in lines if re.search(rf"(^|\$\(){program} ", line)]


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables of a text as their cells, without heads."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    is_rule = [set(line) <= set("|- ") for line in lines] + [False]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if not is_rule[number] and not is_rule[number + 1]
    ]
