"""Ages, durations, sizes and shares, as a person reads them.

Must not know what they are of.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def age(seconds: float) -> str:
    """A time as a number with its unit, or two for hours and days: `4 s`, `12 min`, `3 h 5 min`."""
    whole = max(0, int(seconds))
    for (size, unit), (smaller, beneath) in pairwise(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            more = f" {rest // smaller} {beneath}" if size > 60 and rest >= smaller else ""
            return f"{count} {unit}{more}"
    return f"{whole} s"


def ago(seconds: float | None, never: str = "never") -> str:
    """How long ago, or `never`."""
    if seconds is None:
        return never
    return "just now" if seconds < 1 else f"{age(seconds)} ago"


def duration(seconds: float) -> str:
    """A duration with at least two digits: `4.2 ms`, `180 ms`, `1.40 s`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else age(seconds)


def count(number: int) -> str:
    """A number with thin groups of three digits."""
    return f"{number:,}"


def share(part: float) -> str:
    """A share in percent. Only all of it is 100 %, and only none of it is 0 %."""
    if part in {0.0, 1.0}:
        return f"{part:.0%}".replace("%", " %")
    return f"{min(max(part * 100, 0.1), 99.9):.{0 if 1 <= part * 100 <= 99 else 1}f} %"


def several(number: int, one: str, more: str = "") -> str:
    """A number with its noun: `1 namespace`, `3 namespaces`."""
    return f"{count(number)} {one if number == 1 else more or one + 's'}"


def size(number: int) -> str:
    """A number of bytes: `512 B`, `3.4 KiB`, `16.0 MiB`."""
    amount, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
