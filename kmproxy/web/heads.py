"""Splits the bytes of a connection into heads of requests, one at a time, of bounded size.

Knows the end of a head, and holds the bytes after it until the request is
answered. Must not know the content of a head, sockets or time.
"""

from __future__ import annotations

_END = b"\r\n\r\n"


class Heads:
    """Passes the bytes of a connection on to a parser, one head at a time.

    A head may have at most `most` bytes, and at most as many are held after it.
    Beyond these bounds `too_large` or `crowded` is true, and the connection has
    to end. Time is linear in the number of bytes. Memory is at most `most` bytes
    and the last piece.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._passed = 0  # bytes of the current head that were passed on
        self._tail = b""  # the last of them: an end may have begun there
        self._behind = bytearray()
        self.whole = False

    def __repr__(self) -> str:
        state = "whole" if self.whole else "unfinished"
        return f"<Heads {state}, {self._passed} bytes, {len(self._behind)} behind>"

    @property
    def size(self) -> int:
        """Bytes of the current head, together with the bytes that are held after it."""
        return self._passed + len(self._behind)

    @property
    def too_large(self) -> bool:
        """Whether the current head is longer than the bound."""
        return self._passed > self._most

    @property
    def crowded(self) -> bool:
        """Whether the bytes that are held after the head are more than the bound."""
        return len(self._behind) > self._most

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the connection. Returns its bytes that belong to the current head.

        While a whole head is being answered (`whole`), the method returns no bytes.
        Blank lines before a head are removed.
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
        """Begin a new head after a response. Returns the bytes that were held."""
        behind = bytes(self._behind)
        self._passed, self._tail, self.whole = 0, b"", False
        self._behind.clear()
        return behind
