"""The gzip content coding: whether a client accepts it, a decoder and an encoder.

Knows RFC 9110's Accept-Encoding and RFC 1952's members. Must not know HTTP
messages, sockets or what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from isal import igzip_lib, isal_zlib

from kmproxy.errors import UpstreamError

_GZIP_WINDOW = 31  # 15 bits of window, with a gzip header and trailer
_PIECE = 1 << 17
MAX_MEMBERS = 1000
"""Members of one stream, at most. An empty member costs much more than its 20 bytes."""


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding value allows gzip (RFC 9110, 12.5.3).

    `gzip;q=0` does not allow it. `*` allows it, unless the header names gzip itself.
    An absent or empty header asks for the identity coding.
    """
    weights: dict[str, float] = {}
    for item in header.split(","):
        coding, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights["gzip" if coding == "x-gzip" else coding] = weight
    return weights.get("gzip", weights.get("*", 0.0)) > 0


class GzipDecoder:
    """Decodes a gzip stream, in pieces of bounded size.

    A stream is complete only at the end of a member. Otherwise `finish` raises, because
    a stream that was cut short looks whole up to the cut. `name` names the sender in errors.
    A stream of a peer has at most `max_members`; None sets no limit.
    """

    def __init__(self, name: str = "kubelet", max_members: int | None = MAX_MEMBERS) -> None:
        self._name = name
        self._max_members = max_members
        self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the decoded bytes of `data`.

        Raises UpstreamError if it is not gzip, or if the stream has too many members.
        """
        piece = b""
        while data or len(piece) == _PIECE:  # a full piece: more may be held back
            if self._member.eof:
                if not data:
                    return
                self._members += 1
                if self._max_members is not None and self._members > self._max_members:
                    message = f"the {self._name}'s gzip body has over {self._max_members} members"
                    raise UpstreamError("gzip", message)
                self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
            try:
                piece = self._member.decompress(data, _PIECE)
            except igzip_lib.IsalError as error:  # type: ignore[misc] # the stub leaves its base out
                raise UpstreamError("gzip", f"the {self._name}'s gzip body is damaged") from error
            if piece:
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def finish(self) -> None:
        """Ends the stream. Raises UpstreamError if the stream was cut short."""
        if not self._member.eof:
            raise UpstreamError("truncated", f"the {self._name}'s gzip body was cut short")


class GzipEncoder:
    """Encodes bytes as one gzip member, at the level that costs least per byte saved."""

    def __init__(self) -> None:
        self._member = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WINDOW)

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes. Returns the bytes that are ready to be sent, possibly none."""
        return self._member.compress(data)

    def finish(self) -> bytes:
        """Returns the rest, with the trailer that proves the end of the stream."""
        return self._member.flush()
