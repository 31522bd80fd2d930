"""The catalogues of the messages: what the source holds is looked up, what is translated is kept, and all is compiled.

`make catalogs` runs it. What it writes depends on the source and on the translations alone, so that it can be compared.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

import ita_ag_oase
from ita_ag_oase.observability.language import DOMAIN, FOLDER
from ita_ag_oase.settings import LANGUAGES

SOURCE = Path(ita_ag_oase.__file__).parent
# The code itself is the catalogue of English.
TRANSLATED = tuple(language for language in LANGUAGES if language != "en")
_KEYWORDS = {"Text": None, "counted": (1, 2)}

# A text, or its forms for one and for more.
MessageId = str | tuple[str, ...]


class _LastingCatalog(Catalog):
    """A catalogue whose header says neither when nor by what it was made."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [
            ("Language", str(self.locale)),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
            ("Plural-Forms", self.plural_forms),
        ]


def path(language: str, suffix: str) -> Path:
    """Return where a catalogue is; the suffix is `.po` for the text and `.mo` for what is compiled."""
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}{suffix}"


def extracted(source: Path = SOURCE) -> Iterator[tuple[str, MessageId]]:
    """Return the messages in the source, each with the name of its file."""
    found = extract_from_dir(source, [("**.py", "python")], keywords=_KEYWORDS)
    for file, _, message, _, _ in sorted(found, key=lambda entry: entry[:2]):
        yield Path(file).as_posix(), message


def translated(language: str) -> dict[MessageId, Message]:
    """Return what the text of a catalogue holds."""
    try:
        with path(language, ".po").open("rb") as file:
            catalog = read_po(file, locale=language)
    except FileNotFoundError:
        return {}
    return {message_id(message): message for message in catalog if message.id}


def message_id(message: Message) -> MessageId:
    """Return a message as the source has it."""
    return message.id if isinstance(message.id, str) else tuple(message.id)


def is_translated(message: Message) -> bool:
    """Whether a message is translated in all of its forms."""
    forms = message.string
    return all(forms) if isinstance(forms, list | tuple) else bool(forms)


def made(language: str) -> Catalog:
    """Return a catalogue of what the source holds, with the translations there are."""
    known = translated(language)
    catalog = _LastingCatalog(language, header_comment=f"# Messages of the OASE agent: {language}", fuzzy=False)
    for file, message in extracted():
        before = known.get(message)
        # Without its line, which changes with the code around it.
        catalog.add(message, before.string if before else None, locations=[(file, 0)])
    return catalog


def as_po(catalog: Catalog) -> bytes:
    """Return the text of a catalogue."""
    out = io.BytesIO()
    write_po(out, catalog, width=120, include_lineno=False)
    return out.getvalue()


def as_mo(catalog: Catalog) -> bytes:
    """Return what gettext reads."""
    out = io.BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def main() -> None:
    """Write the catalogues, and print what is not translated yet."""
    for language in TRANSLATED:
        catalog = made(language)
        path(language, ".po").parent.mkdir(parents=True, exist_ok=True)
        path(language, ".po").write_bytes(as_po(catalog))
        path(language, ".mo").write_bytes(as_mo(catalog))
        for message in catalog:
            if message.id and not is_translated(message):
                print(f"{language}: not translated: {message.id!r}")


if __name__ == "__main__":
    main()
