"""The registry of a port's open connections: admits new ones, and closes others for them.

Knows which connections have a known caller, which have a running request, and how
many bytes of unfinished requests each holds. Must not know sockets, the event loop
or time: it decides at once, and ends a connection by its `cut`.

A connection is a stranger until its caller becomes known (`know`). If there are too
many connections, a stranger is closed first: of the network address with the most
strangers, the oldest one whose request was answered without a known caller, else
the oldest one. Then the connection that has rested longest is closed: one of a
known caller, without a running request. A running request of a known caller is
never ended.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar


class Cuttable(Protocol):
    """A connection, as the registry sees it: it can be ended."""

    def cut(self, reason: str) -> None:
        """End the connection, whatever its state. The registry has already removed it."""


C = TypeVar("C", bound=Cuttable)


@lru_cache(maxsize=256)
def network(host: str | None) -> str:
    """The network that counts as one address: an IPv4 address, or the /64 of an IPv6 address."""
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
    """Connections in the order of `add`, separated by group."""

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
        """The group with the most connections, of equal ones the oldest. One must exist."""
        return max(self._groups.values(), key=len)


@dataclass(slots=True)
class _Entry:
    address: str
    group: str  # in the queue of its kind
    known: bool = False
    working: bool = False  # whether a known caller's request runs: then it is in no queue
    tried: bool = False  # whether a request was answered without its caller becoming known
    head: int = 0  # bytes of unfinished requests


class OpenConnections(Generic[C]):
    """Holds at most `most` connections, with at most `head_bytes` of unfinished requests.

    Strangers may have three quarters of the places. If these are taken, a new
    connection displaces one of the address with the most strangers. While strangers
    have at most an eighth of the places and all places are taken, a new connection
    displaces a resting one of a known caller. So new clients do not displace one
    another.
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
        """All connections, the oldest first."""
        return tuple(self._entries)

    def admit(self, connection: C, host: str | None) -> bool:
        """Whether a new connection is admitted. Another connection may be cut for it."""
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
        """Record a complete head. Its caller is not authenticated yet.

        A resting connection then counts as the one that has rested for the shortest time.
        """
        if (entry := self._entries.get(connection)) is None:
            return
        if entry.known and not entry.working:  # to the end of its queue
            self._resting.remove(connection, entry.group)
            self._resting.add(connection, entry.group)

    def know(self, connection: C, *, by_address: bool) -> None:
        """Record that the running request's caller is known. The connection is safe until `rest`.

        `by_address` is true if callers differ by their address only. Then the address
        with the most resting connections loses one first.
        """
        if (entry := self._entries.get(connection)) is None:
            return
        (self._resting if entry.known else self._strangers).remove(connection, entry.group)
        entry.known = entry.working = True
        entry.group = entry.address if by_address else ""
        self._charge(entry, 0)

    def rest(self, connection: C) -> None:
        """Record that the running request is answered."""
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
        """Record how many bytes of unfinished requests a connection holds.

        The bytes of a known caller's running request are not counted. If there are too
        many bytes in all, the connection with the most is cut, a stranger's before a
        known caller's. Returns False if this connection was cut.
        """
        if (entry := self._entries.get(connection)) is None:
            return False
        if not entry.working:
            self._charge(entry, size)
        while self._heads > self._head_bytes:
            self._cut(max(self._entries, key=self._weight), "heads")
        return connection in self._entries

    def forget(self, connection: C) -> None:
        """Record that a connection has ended."""
        if (entry := self._entries.pop(connection, None)) is None:
            return
        (self._resting if entry.known else self._strangers).remove(connection, entry.group)
        self._charge(entry, 0)

    def _stranger(self) -> C:
        """The stranger to close: the oldest with an answered request, else the oldest."""
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
