"""The catalogues of the languages in which people are told what there is to tell."""

import gettext
from pathlib import Path

from ita_ag_oase.text import Translations

DOMAIN = "ita_ag_oase"
FOLDER = Path(__file__).parents[1] / "locale"


def translations(language: str) -> Translations:
    """Return the catalogue of a language, one of settings.LANGUAGES. English is what the code itself is written in."""
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, FOLDER, languages=[language])
