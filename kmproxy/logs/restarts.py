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
    is_final: bool = False
    """Whether the status has shown that the last instance ended, and that none follows."""
    _was_ended: bool = False  # whether the status has shown that the last instance ended

    def observe(
        self, latest: int, now: float, *, is_ended: bool, is_deleted: bool, is_final: bool = False
    ) -> bool:
        """Take what the status says. Returns whether an instance has begun or ended."""
        before = self.latest, self._ended
        if is_deleted:
            latest = max(latest, self.latest)
        if latest != self.latest:
            self.latest, self.since, self._ended = latest, now, None
            self.is_final = self._was_ended = False
        if not is_deleted:
            self._was_ended = is_ended
        self.is_deleted, self.is_final = is_deleted, is_final or self.is_final
        if not is_ended and not is_deleted:
            self._ended = None
        elif self._ended is None:
            self._ended = now
        return before != (self.latest, self._ended)

    @property
    def is_unsure(self) -> bool:
        """Whether the pod is gone, and no status has shown that the last instance ended."""
        return self.is_deleted and not self.is_final and not self._was_ended

    def extend(self, latest: int, now: float) -> None:
        """Take the number of an instance of a deleted pod which no status has shown."""
        if latest > self.latest:
            self.latest, self.since, self.is_final, self._was_ended = latest, now, False, False

    def ended(self, instance: int) -> float | None:
        """Return when an instance was first seen to have ended, or None while it runs."""
        return self.since if instance < self.latest else self._ended
