"""The bytes of a connection as heads of requests: one at a time, each of bounded size.

Knows where a head ends, and holds back what comes behind it until its request
is answered. Must not know what a head says, nor sockets or time.
"""

from __future__ import annotations

_END = b"\r\n\r\n"


class Heads:
    """Passes the bytes of a connection on to a parser, one head at a time.

    A head has at most `most` bytes, and as many are held behind a request under
    way: past these `too_large` or `crowded` is true, and the connection is to end.
    Time is linear in the bytes, memory is at most `most` bytes and the last piece.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._passed = 0  # bytes of the current head that were passed on
        self._tail = b""  # the last of them, where an end may have begun
        self._behind = bytearray()
        self.whole = False

    def __repr__(self) -> str:
        state = "whole" if self.whole else "unfinished"
        return f"<Heads {state}, {self._passed} bytes, {len(self._behind)} behind>"

    @property
    def size(self) -> int:
        """Bytes of the current head, and of what is held behind it."""
        return self._passed + len(self._behind)

    @property
    def too_large(self) -> bool:
        """Whether the current head is over the bound."""
        return self._passed > self._most

    @property
    def crowded(self) -> bool:
        """Whether what is held behind the head is over the bound."""
        return len(self._behind) > self._most

    def feed(self, data: bytes) -> bytes:
        """Take what has come; return what of it belongs to the current head.

        Nothing is returned while a whole head is being answered (`whole`). Blank
        lines before a head are left out.
        """
        if self.whole:
            self._behind += data[: self._most + 1 - len(self._behind)]
            return b""
        if not self._passed:
            data = data.lstrip(b"\r\n")
        joined = self._tail + data
        found = joined.find(_END)
        if found < 0:
            self._tail = joined[1 - len(_END) :]
            self._passed += len(data)
            return data
        end = found + len(_END) - len(self._tail)
        self._passed += end
        self._tail = b""
        self.whole = True
        self._behind += data[end : end + self._most + 1]
        return data[:end]

    def next(self) -> bytes:
        """The request is answered: begin a new head; returns what was held behind it."""
        behind = bytes(self._behind)
        self._passed, self._tail, self.whole = 0, b"", False
        self._behind.clear()
        return behind
