"""A line of a container's log, and the mark that acknowledges the line.

Knows identities and times. Must not know files, requests, labels or pushes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec


@dataclass(frozen=True, slots=True)
class Container:
    """The identity of a container whose log is read. Its restarts are instances of it."""

    uid: str
    """The pod's `metadata.uid`. It names the log's folder, for a static pod too."""
    namespace: str
    pod: str
    name: str
    """The container's name: of an init or ephemeral container, too."""
    node: str
    """The pod's `spec.nodeName`."""


NO_INSTANCE: Final = -1
"""The instance of a line that no container wrote, such as that of a Kubernetes event."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One whole line as the container wrote it: its parts are joined."""

    container: Container
    instance: int
    """The restart that wrote the line: 0 is the container's first run. Or `NO_INSTANCE`."""
    stream: str
    """`stdout` or `stderr`, empty if that is not known, `event` for a Kubernetes event."""
    time: int
    """Nanoseconds since 1970, of the line's first part. Times of one container may go back."""
    text: bytes
    """Without the newline, at most `max_line` bytes. It may not be UTF-8."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Acknowledges a line and all lines of the container that were read before it.

    A reader derives its own mark with a position in it, and hands one out with each line. The
    numbers of one reader's marks grow from line to line. Only the reader looks into its mark.
    """

    number: int
