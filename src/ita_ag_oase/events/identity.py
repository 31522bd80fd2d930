"""What identifies an event: the value at EVENT_ID_KEY, or a serial number of the agent's."""

import itertools

from typing_extensions import Buffer

from ita_ag_oase.events.json_text import Expression
from ita_ag_oase.model import Event


class EventIds:
    """Gives the events of one poll their ids.

    A serial id is a decimal count of microseconds, unique and growing within the poll.
    """

    def __init__(self, event_id_key: Expression | None, now_microseconds: int) -> None:
        self._event_id_key = event_id_key
        self._serials = itertools.count(now_microseconds)

    def serial(self, raw: Buffer, unavailable: str | None) -> Event:
        """Return the event with an id of the agent's own."""
        return Event(str(next(self._serials)), True, raw, unavailable)

    def listed(self, array: Buffer) -> list[str] | None:
        """Return the ids that the elements of a JSON array hold, None where one holds none or is no object."""
        values = self._event_id_key.values(array) if self._event_id_key is not None else None
        if values is None or None in values:
            return None
        return [value if isinstance(value, str) else str(value) for value in values]

    def identified(self, raw: Buffer, not_found: str) -> Event:
        """Return the event with the id it holds, as Python's str() writes it.

        Without EVENT_ID_KEY it gets a serial id; where the key finds nothing, also `not_found` as the reason.
        """
        if self._event_id_key is None:
            return self.serial(raw, None)
        value = self._event_id_key.value(raw)
        if value is None:
            return self.serial(raw, not_found)
        return Event(value if isinstance(value, str) else str(value), False, raw, None)
