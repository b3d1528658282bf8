"""The names of log files in the index of a folder that the kubelet serves.

Knows names. Must not know requests. A name of an index is a claim: only the forms that the kubelet
gives to log files are taken, and nothing else of a link is ever used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r'<a href="(\d{1,9})\.log(?:\.(\d{8}-\d{6})(\.gz)?)?">')
_MOST = 10_000
"""Names that are looked at. The kubelet keeps some five files of an instance."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated file of an instance."""

    stamp: str
    """The time in its name. It grows from rotation to rotation."""
    is_packed: bool

    def name(self, instance: int) -> str:
        """Return the name of the file."""
        return f"{instance}.log.{self.stamp}{'.gz' if self.is_packed else ''}"


class Listing:
    """The log files of a container."""

    def __init__(self, index: bytes) -> None:
        self._current: set[int] = set()
        self._rotated: dict[int, dict[str, Rotated]] = {}
        for number, found in enumerate(_NAME.finditer(index.decode("ascii", "replace"))):
            if number == _MOST:
                break
            instance, stamp, packed = int(found[1]), found[2], bool(found[3])
            if stamp is None:
                self._current.add(instance)
                continue
            files = self._rotated.setdefault(instance, {})
            if stamp not in files or not packed:  # both exist while one is made of the other
                files[stamp] = Rotated(stamp, packed)

    @property
    def instances(self) -> list[int]:
        """The instances of which a file is there, in their order."""
        return sorted(self._current | set(self._rotated))

    def has_current(self, instance: int) -> bool:
        """Return whether the file that an instance writes to is there."""
        return instance in self._current

    def rotated(self, instance: int) -> list[Rotated]:
        """Return the rotated files of an instance in the order in which they were written."""
        files = self._rotated.get(instance, {})
        return [files[stamp] for stamp in sorted(files)]

    def has_rotated(self, instance: int, stamp: str) -> bool:
        """Return whether a rotated file of an instance is there."""
        return stamp in self._rotated.get(instance, {})
