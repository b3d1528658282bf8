"""The instances of a container, as the pod's status tells of them.

Knows numbers of restarts, and times in seconds of the caller's clock. Must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Restarts:
    """The last instance, and when it was first seen to have started and to have ended."""

    latest: int = -1
    since: float = 0.0
    _ended: float | None = None
    is_deleted: bool = False
    """Whether the pod is gone, so that no further instance comes."""

    def observe(self, latest: int, now: float, *, is_ended: bool, is_deleted: bool) -> bool:
        """Take what the status says. Returns whether an instance has begun or ended."""
        before = self.latest, self._ended
        if latest != self.latest:
            self.latest, self.since, self._ended = latest, now, None
        self.is_deleted = is_deleted
        if not is_ended and not is_deleted:
            self._ended = None
        elif self._ended is None:
            self._ended = now
        return before != (self.latest, self._ended)

    def ended(self, instance: int) -> float | None:
        """Return when an instance was first seen to have ended, or None while it runs."""
        return self.since if instance < self.latest else self._ended
