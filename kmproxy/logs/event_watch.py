"""List and watch of events: its requests, the bytes of a watch, and the next step after each.

Knows how the API server serves events, which is not as it serves other objects: it has no cache of
them, so a watch gets no bookmarks, and a watch from a version that was not reached yet is silent.
Must not know sockets, positions or lines.

A list is the last resort, because it shows only the last change of an event, and none of an event
that is gone. So a watch goes on from the version of its last event as long as the API server has
the history since. That is five minutes at least, unless etcd is told otherwise. A watch that was
silent for `REFRESH` seconds is followed by a list in time, and the list proves that it missed
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.objects import parse_status
from kmproxy.kube.outage import TOO_LARGE
from kmproxy.kube.watch import PAGE, SHORT_WATCH, WATCH_TIMEOUT, Next, WatchLines
from kmproxy.logs.event_text import version_of, whole_text

PATH: Final = "/apis/events.k8s.io/v1"

REFRESH: Final = 150.0
"""Seconds after the last sign of the API server's version, after which a list is due."""

_PLAIN: Final = frozenset("*?[")


class _Change(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


_CHANGE = msgspec.json.Decoder(_Change)
_OBJECT = msgspec.json.Decoder(_Object)


class EventChange(NamedTuple):
    """A change that a watch tells of. `event` is empty if it makes no line."""

    version: int
    event: bytes


def event_namespaces(namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """Return the namespaces to watch: all (""), if one is a pattern or none is given.

    A Role may allow single namespaces, and then only these watches.
    """
    if not namespaces or any(_PLAIN & set(each) for each in namespaces):
        return ("",)
    return tuple(dict.fromkeys(namespaces))


def event_path(namespace: str) -> str:
    """Return the path of the events of a namespace, or of all of them."""
    return f"{PATH}/namespaces/{namespace}/events" if namespace else f"{PATH}/events"


class EventWatch:
    """The requests of one list and watch, and the bytes of the present watch."""

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._lines = WatchLines()
        self._open = False

    def __repr__(self) -> str:
        return f"<EventWatch {'open' if self._open else 'not open'}>"

    @staticmethod
    def list_params(token: str = "", *, limit: int = PAGE) -> dict[str, str]:
        """Return the query of the first page of a list, or of the one that `token` stands for."""
        return {"limit": str(limit), **({"continue": token} if token else {})}

    def watch_params(self, version: int) -> dict[str, str]:
        """Return the query of the next watch. `feed` then takes its bytes from the first one on."""
        self._lines, self._open = WatchLines(), False
        return {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(version),
            "timeoutSeconds": str(round(self._uniform(*WATCH_TIMEOUT))),
        }

    def opened(self) -> None:
        """Record that the watch has been answered."""
        self._open = True

    def feed(self, data: bytes) -> Iterator[EventChange]:
        """Take bytes of a watch; yield its changes.

        Raises ApiError for an ERROR event, and for a line that is not an event.
        """
        for line in self._lines.split(data):
            if line.strip():
                yield _read(line)

    def ended(self, lasted: float, age: float) -> Next:
        """Return the next step after a clean end of a watch after `lasted` seconds.

        The last sign of a version came `age` seconds ago. Raises ApiError if the watch ended at
        once or in the middle of a line.
        """
        if self._lines.unended:
            raise ApiError(200, "cut", "the watch ended in the middle of an event")
        if lasted < SHORT_WATCH:
            raise ApiError(200, "short", "the watch ended at once")
        return Next.WATCH_AT_ONCE if age < REFRESH else Next.LIST_AT_ONCE

    def failed(self, error: UpstreamError, *, listing: bool, age: float) -> Next:
        """Return the next step after a list or a watch failed."""
        if listing:
            return Next.LIST
        if isinstance(error, ApiError):
            return Next.LIST if is_gone(error) or error.reason == "garbage" else Next.WATCH
        if self._open and error.reason == "timeout":
            return Next.WATCH_AT_ONCE if age < REFRESH else Next.LIST_AT_ONCE
        return Next.WATCH


def is_gone(error: UpstreamError) -> bool:
    """Tell whether the API server has no history since a version, or has not reached it."""
    return isinstance(error, ApiError) and (error.code == 410 or TOO_LARGE in str(error))


def _read(line: bytes) -> EventChange:
    try:
        try:
            change = _CHANGE.decode(line)
        except msgspec.DecodeError:  # perhaps for half of a pair of surrogates
            change = _CHANGE.decode(whole_text(line))
        if change.type == "ERROR":
            raise parse_status(500, bytes(change.object))
        version = version_of(_OBJECT.decode(change.object).metadata.resource_version)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(200, "garbage", "a watch event cannot be read") from error
    if version is None:
        raise ApiError(200, "garbage", "the resource version of an event is not a number")
    is_line = change.type in {"ADDED", "MODIFIED"}
    return EventChange(version, bytes(change.object) if is_line else b"")
