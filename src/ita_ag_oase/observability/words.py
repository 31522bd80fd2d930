"""How ages and sizes are told to people."""

from ita_ag_oase.text import Text

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_UNITS = {1: "KiB", 2: "MiB", 3: "GiB", 4: "TiB"}
_STEP = 1_024
# From here on a tenth says nothing.
_WHOLE_FROM = 99.95


def age(seconds: float) -> Text:
    """Return a duration in its greatest whole unit, such as `3 min`."""
    if seconds >= _DAY:
        return Text("{count} d", count=int(seconds // _DAY))
    if seconds >= _HOUR:
        return Text("{count} h", count=int(seconds // _HOUR))
    if seconds >= _MINUTE:
        return Text("{count} min", count=int(seconds // _MINUTE))
    return Text("{count} s", count=max(int(seconds), 0))


def distance(seconds: float) -> Text:
    """Return how far a moment lies ahead or, where `seconds` is negative, back, such as `3 min ago`."""
    if seconds > 0:
        return Text("in {age}", age=age(seconds))
    return Text("{age} ago", age=age(-seconds))


def size(count: int) -> str:
    """Return an amount of bytes with three digits or so, such as `3.4 MiB`, which is the same in every language."""
    if count < _STEP:
        return f"{count} B"
    # What would be rounded up to 1,024 is one of the next unit.
    power = next((power for power in _UNITS if count < (_STEP - 0.5) * _STEP**power), max(_UNITS))
    amount = count / _STEP**power
    return f"{amount:.1f} {_UNITS[power]}" if amount < _WHOLE_FROM else f"{amount:,.0f} {_UNITS[power]}"
