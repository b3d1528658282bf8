"""Decides when a log file is asked for next, and when its end is believed.

Knows times in seconds, which are passed in. Must not know files or requests.
"""

from __future__ import annotations

from dataclasses import dataclass

ENDING = 0.25
"""Seconds between two requests while a container's files may be deleted soon."""


SETTLE = 1.0
"""Seconds for which the runtime may write to a file that has a successor, or whose writer ended."""

LINGER = 30.0
"""Seconds without new bytes after which a container has ended whose pod is gone, if no status has
shown that. The containers of a pod that was deleted by force may run on."""

PATIENCE = 8
"""Looks at a rotated file that stands in the index, but is never there. Then it is passed over."""


@dataclass(slots=True)
class Pace:
    """The time between two requests: short after new bytes, longer and longer without."""

    active: float = 1.0
    idle: float = 10.0
    growth: float = 1.5
    wait: float = 1.0

    def next(self, *, is_active: bool, is_ending: bool) -> float:
        """Return the seconds to wait after a request that found new bytes, or did not."""
        self.wait = self.active if is_active else min(self.wait * self.growth, self.idle)
        return ENDING if is_ending else self.wait
