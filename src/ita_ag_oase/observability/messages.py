"""What each log event means in words: the `message` of its line, and what to do about it."""

from collections.abc import Mapping
from typing import NamedTuple

from ita_ag_oase.text import Text


class Message(NamedTuple):
    """The sentence for an event, made with the facts of its line, and what a person can do about it, if anything."""

    text: Text
    action: Text | None = None


MESSAGES: Mapping[str, Message] = {
    "status_server_failed": Message(Text("there is no status page for now: {detail}")),
    "status_server_started": Message(Text("the status page is at {url}")),
}
