"""The looks at the newest file of an instance: what they have shown, and when its end is believed.

Knows times in seconds of the caller's clock. Must not know files or requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from kmproxy.logs.pace import LINGER, SETTLE
from kmproxy.logs.restarts import Restarts


@dataclass(slots=True)
class Looks:
    """The looks at the newest file of the instance that is read."""

    restarts: Restarts = field(default_factory=Restarts)
    is_behind: bool = True
    """Whether bytes were not read: known ones, or ones in a file that was not looked at yet."""
    read_up: float = -inf
    """When the last request was sent that showed the end of the file."""
    fresh: float = -inf
    """When the last request was sent that brought new bytes of any file."""

    def begin(self) -> None:
        """Say that there is another newest file. It was not looked at yet."""
        self.is_behind, self.read_up = True, -inf

    def take(self, asked: float, *, is_new: bool, is_up: bool, is_behind: bool) -> None:
        """Say what a request has shown: new bytes, the end of the newest file, or further bytes."""
        if is_new:
            self.fresh = asked
        self.is_behind = is_behind
        if is_up:
            self.read_up = asked

    def settled(self, instance: int) -> float | None:
        """Return from when on the end of the newest file of an instance is believed, or None."""
        ended = self.restarts.ended(instance)
        if ended is None:
            return None
        return max(ended, self.fresh) + LINGER if self._runs_on(instance) else ended + SETTLE

    def is_urgent(self, instance: int, now: float) -> bool:
        """Return whether the files of an instance may be deleted soon."""
        ended = self.restarts.ended(instance)
        return ended is not None and not (self._runs_on(instance) and now >= ended + 2 * SETTLE)

    def loss(self, instance: int) -> str | None:
        """Return the reason by which a gap is counted if the newest file is gone, or None."""
        ended = self.restarts.ended(instance)
        if ended is not None and self.read_up >= ended:
            ran_on = self._runs_on(instance) and self.fresh >= ended + SETTLE
            return "unseen" if ran_on else None
        return "deleted" if self.is_behind else "unseen"

    def _runs_on(self, instance: int) -> bool:
        """Whether an instance may run although its pod is gone: no status has shown its end."""
        return self.restarts.is_unsure and instance == self.restarts.latest
