"""The book of a port's open connections: which are let in, and which end for others.

Knows whose caller is known, who is at work, and how many bytes of unfinished
requests each holds. Must not know sockets, the event loop or time: it decides at
once, and ends a connection by its `cut`.

A connection is a stranger until a caller on it becomes known (`know`). With too
many connections strangers go first, of the network address with the most of
them, and there the oldest that has asked in vain; then what has rested longest. A
request of a known caller is never ended.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Cuttable(Protocol):
    """What the book keeps: something that can be ended."""

    def cut(self, reason: str) -> None:
        """End it, whatever it does. It is not in the book any more."""


C = TypeVar("C", bound=Cuttable)


def network(host: str | None) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


class _Queues(Generic[C]):
    """Connections in the order of their coming, apart by group."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, dict[C, None]] = defaultdict(dict)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, connection: C, group: str) -> None:
        self._groups[group][connection] = None
        self._length += 1

    def remove(self, connection: C, group: str) -> None:
        if connection in self._groups[group]:
            del self._groups[group][connection]
            self._length -= 1
        if not self._groups[group]:
            del self._groups[group]

    def largest(self) -> dict[C, None]:
        """The group with the most, of equal ones the oldest; there must be one."""
        return max(self._groups.values(), key=len)


@dataclass(slots=True)
class _Entry:
    address: str
    group: str  # in its queue
    known: bool = False
    working: bool = False  # whether a known caller's request is under way: it is in no queue
    tried: bool = False  # whether a request was answered without its caller becoming known
    head: int = 0  # bytes of unfinished requests


class OpenConnections(Generic[C]):
    """At most `most` connections, with at most `head_bytes` of unfinished requests.

    Strangers have three quarters of the places at most; where those are taken,
    the address with the most of them gives one up. The first eighth of the places
    is theirs even if all others are taken by known callers that rest, so that
    newcomers do not end one another.
    """

    def __init__(self, most: int, *, head_bytes: int) -> None:
        self._most = most
        self._share = most - most // 4
        self._floor = most // 8
        self._head_bytes = head_bytes
        self._entries: dict[C, _Entry] = {}
        self._strangers: _Queues[C] = _Queues()
        self._resting: _Queues[C] = _Queues()
        self._heads = 0

    def __repr__(self) -> str:
        strangers, heads = len(self._strangers), self._heads
        return f"<OpenConnections {len(self)} of {self._most}, {strangers} strangers, {heads} B>"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, connection: C) -> bool:
        return connection in self._entries

    def all(self) -> tuple[C, ...]:
        """Every connection, the oldest first."""
        return tuple(self._entries)

    def admit(self, connection: C, host: str | None) -> bool:
        """Whether a new connection is let in; another may be cut for it."""
        strangers = len(self._strangers)
        full = len(self) >= self._most
        if strangers and (strangers >= self._share or (full and strangers > self._floor)):
            self._cut(self._stranger(), "limit")
        elif full and len(self._resting):
            self._cut(next(iter(self._resting.largest())), "limit")
        elif full and strangers:
            self._cut(self._stranger(), "limit")
        elif full:
            return False
        address = network(host)
        self._entries[connection] = _Entry(address, address)
        self._strangers.add(connection, address)
        return True

    def ask(self, connection: C) -> None:
        """Note a whole request, of a caller who is not known yet: a known one's rest is over."""
        if (entry := self._entries.get(connection)) is None:
            return
        if entry.known and not entry.working:  # it has not rested as long as others any more
            self._resting.remove(connection, entry.group)
            self._resting.add(connection, entry.group)

    def know(self, connection: C, *, by_address: bool) -> None:
        """Note that the caller of the request under way is known: it is not ended any more.

        `by_address` says that callers are told apart by their address alone: then
        the address with the most connections that rest gives one up first.
        """
        if (entry := self._entries.get(connection)) is None:
            return
        (self._resting if entry.known else self._strangers).remove(connection, entry.group)
        entry.known = entry.working = True
        entry.group = entry.address if by_address else ""
        self._charge(entry, 0)

    def rest(self, connection: C) -> None:
        """Note that the request under way is answered."""
        if (entry := self._entries.get(connection)) is None:
            return
        entry.working = False
        self._charge(entry, 0)
        if not entry.known:
            entry.tried = True
        else:
            self._resting.remove(connection, entry.group)
            self._resting.add(connection, entry.group)

    def hold(self, connection: C, size: int) -> bool:
        """Note how many bytes of unfinished requests a connection holds.

        Those of a known caller's request under way are not counted. With too many
        in all the largest is cut, of a stranger first. False if this one was.
        """
        if (entry := self._entries.get(connection)) is None:
            return False
        if not entry.working:
            self._charge(entry, size)
        while self._heads > self._head_bytes:
            self._cut(max(self._entries, key=self._weight), "heads")
        return connection in self._entries

    def forget(self, connection: C) -> None:
        """Note that a connection has ended."""
        if (entry := self._entries.pop(connection, None)) is None:
            return
        (self._resting if entry.known else self._strangers).remove(connection, entry.group)
        self._charge(entry, 0)

    def _stranger(self) -> C:
        """The stranger to go: the oldest that has asked in vain, else the oldest."""
        group = self._strangers.largest()
        tried = (each for each in group if self._entries[each].tried)
        return next(tried, next(iter(group)))

    def _weight(self, connection: C) -> tuple[bool, bool, int]:
        entry = self._entries[connection]
        return entry.head > 0, not entry.known, entry.head

    def _charge(self, entry: _Entry, size: int) -> None:
        self._heads += size - entry.head
        entry.head = size

    def _cut(self, connection: C, reason: str) -> None:
        self.forget(connection)
        connection.cut(reason)
