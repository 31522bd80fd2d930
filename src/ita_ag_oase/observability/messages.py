"""What each log event means in words: the `message` of its line, and what to do about it."""

from collections.abc import Mapping
from typing import NamedTuple

from ita_ag_oase.text import Text


class Message(NamedTuple):
    """The sentence for an event, made with the facts of its line, and what a person can do about it, if anything."""

    text: Text
    action: Text | None = None


MESSAGES: Mapping[str, Message] = {
    "status_server_started": Message(Text("the status page is at {url}")),
    "status_server_failed": Message(
        Text("the status page cannot be served: {detail}"),
        Text("set STATUS_PORT to a free port, or to 0 to go without; the agent itself goes on"),
    ),
    "status_server_recovered": Message(Text("the status page can be served again")),
}
