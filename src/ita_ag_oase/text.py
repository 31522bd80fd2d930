"""Sentences for people, kept apart from what they tell of until it is known in which language they are told.

What stands in `Text(...)` and `counted(...)` is found there when the catalogues are made (`make catalogs`), so it must
be a literal.
"""

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

# Behind words that were cut. By this mark a redactor knows that they may end within a secret.
SHORTENED = "…"


class Translations(Protocol):
    """What knows the words of a language, such as the catalogues of gettext."""

    def gettext(self, message: str, /) -> str:
        """Return a message in the language."""

    def ngettext(self, singular: str, plural: str, count: int, /) -> str:
        """Return the form that fits the count in the language."""


@runtime_checkable
class Told(Protocol):
    """What can be told in any language: a text, or an error that has one."""

    def told(self, translations: Translations) -> str:
        """Return it in a language."""


class Text:
    """A sentence with its facts. `str` gives it in English.

    The template is English and a str.format string; facts that are texts or errors are told in the same language.
    """

    __slots__ = ("facts", "plural", "template")

    def __init__(self, template: str, /, **facts: Any) -> None:
        self.template = template
        self.plural: str | None = None
        self.facts: Mapping[str, Any] = facts

    def __str__(self) -> str:
        return self.told(ENGLISH)

    def __repr__(self) -> str:
        return f"Text({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Text):
            return NotImplemented
        return (self.template, self.plural, self.facts) == (other.template, other.plural, other.facts)

    def __hash__(self) -> int:
        return hash((self.template, self.plural))

    def about(self, **facts: Any) -> "Text":
        """Return the same sentence with further facts."""
        text = Text(self.template, **{**self.facts, **facts})
        text.plural = self.plural
        return text

    def told(self, translations: Translations) -> str:
        """Return the sentence in a language."""
        facts = {name: fact.told(translations) if isinstance(fact, Told) else fact for name, fact in self.facts.items()}
        if self.plural is None:
            return translations.gettext(self.template).format(**facts)
        return translations.ngettext(self.template, self.plural, self.facts["count"]).format(**facts)

    @classmethod
    def _counted(cls, singular: str, plural: str, facts: Mapping[str, Any]) -> Self:
        text = cls(singular, **facts)
        text.plural = plural
        return text


def counted(singular: str, plural: str, /, *, count: int, **facts: Any) -> Text:
    """Return a sentence in one form for one and in another for more; both may name `{count}`."""
    return Text._counted(singular, plural, {"count": count, **facts})  # noqa: SLF001 - Text's own other constructor


def verbatim(words: str) -> Text:
    """Return what others said, which is in no catalogue."""
    return Text("{words}", words=words)


def shorten(words: str, characters: int) -> str:
    """Return what others said in at most so many characters, with SHORTENED at the end where some are missing."""
    return words if len(words) <= characters else f"{words[: characters - 1]}{SHORTENED}"


class _English:
    """The language that the templates are written in."""

    def gettext(self, message: str, /) -> str:
        return message

    def ngettext(self, singular: str, plural: str, count: int, /) -> str:
        return singular if count == 1 else plural


ENGLISH = _English()
