"""The recipes of the page about sources: settings to copy, what tools answer, what Exastro gets.

A recipe is a section with a table of columns. PARAMETER may stand in a block below it, and examples follow: the tool's
answer, then an event.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ita_ag_oase.demo.exastro import setting_row

PAGE = Path(__file__).parents[1] / "docs" / "sources.md"

# Its value may stand in the block below the table.
_BELOW = "PARAMETER"
_SECRET = "AUTH_TOKEN"


@dataclass(frozen=True)
class Recipe:
    """What one section says: columns without secrets, blocks of templates, and examples as JSON values."""

    columns: dict[str, str | None]
    templates: list[str]
    examples: list[Any]

    @property
    def name(self) -> str:
        """The name of the setting."""
        return str(self.columns["EVENT_COLLECTION_SETTINGS_NAME"])

    @property
    def answer(self) -> Any:
        """What the tool answers in the example."""
        return self.examples[0]

    @property
    def event(self) -> dict[str, Any]:
        """The event that Exastro gets in the example."""
        event: dict[str, Any] = self.examples[1]
        return event


def row_at(url: str, columns: Mapping[str, str | None], **more: str) -> dict[str, Any]:
    """Return a recipe's columns as a row of settings, with the tool at `url` in place of the page's host."""
    whole_url = url + urlsplit(str(columns["URL"])).path
    return {
        **setting_row(str(columns["EVENT_COLLECTION_SETTINGS_NAME"]), whole_url),
        **columns,
        "URL": whole_url,
        **more,
    }


def recipe(heading: str) -> Recipe:
    """Return the recipe under a heading of the page. Raises ValueError where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"no section {heading!r} in {PAGE}")
    text = found[1]
    templates = _blocks(text, "jinja")
    columns = {name: _value(name, cell, templates) for name, cell in _rows(text) if name != _SECRET}
    return Recipe(columns, templates, [json.loads(block) for block in _blocks(text, "json")])


def _rows(text: str) -> list[tuple[str, str]]:
    """Return the columns of settings in the section's tables, and the cells with their values."""
    return re.findall(r"^\| ([A-Z_]+) \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)


def _value(column: str, cell: str, templates: list[str]) -> str | None:
    code = re.match(r"`([^`]+)`", cell)
    if code is not None:
        return code[1]
    return templates[0] if column == _BELOW else None


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
