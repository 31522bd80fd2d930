"""The catalogues of the languages in which people are told what there is to tell."""

import gettext
from pathlib import Path

from ita_ag_oase.text import Text, Translations

DOMAIN = "ita_ag_oase"
FOLDER = Path(__file__).parents[1] / "locale"


# What argparse says. It asks gettext, so it is here for the catalogues only; a word that another Python uses instead
# stays English.
ARGPARSE = (
    Text("usage: "),
    Text("positional arguments"),
    Text("options"),
    Text("show this help message and exit"),
    Text("%(prog)s: error: %(message)s\n"),
    Text("argument %(argument_name)s: %(message)s"),
    Text("invalid choice: %(value)r (choose from %(choices)s)"),
    Text("invalid choice: %(value)r, maybe you meant %(suggestion)r? (choose from %(choices)s)"),
    Text("ambiguous option: %(option)s could match %(matches)s"),
    Text("unrecognized arguments: %s"),
    Text("the following arguments are required: %s"),
    Text("expected one argument"),
    Text("ignored explicit argument %r"),
)


def make_default() -> None:
    """Have gettext look into our catalogues wherever it is asked without one, as argparse asks it.

    Their language is that of the environment (`settings.hand_on_language`).
    """
    gettext.bindtextdomain(DOMAIN, str(FOLDER))
    gettext.textdomain(DOMAIN)


def translations(language: str) -> Translations:
    """Return the catalogue of a language, one of settings.LANGUAGES. English is what the code itself is written in."""
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, FOLDER, languages=[language])
