"""Reads the lists of the API server while they arrive, and keeps only the metadata of each object.

Knows the JSON of objects and of lists. Must not know what is listed or when, or sockets. A list may
have any length, because the cache of the API server returns all objects on one page, whatever limit
the request names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from kmproxy.errors import ApiError
from kmproxy.kube.objects import ListMeta, ObjectMeta, decode, decode_object

_F = TypeVar("_F", bound="Frame")

SLICE = 100
"""Objects that are decoded in one turn of the event loop. Objects of the usual size take less than
a millisecond. The turn has to be short, because a scrape needs several turns."""

MAX_OBJECT = 8 << 20
"""Bytes of the longest object or watch event. etcd stores objects of at most 1.5 MB."""

MAX_FRAME = 4 << 20
"""Bytes of the longest frame: the list without its objects. It holds the metadata of the list, and
for each object the placeholder ` 0 ` and a comma."""

MAX_FRAME_PARTS = 1000
"""Objects and arrays in the frame. A list has three. Each takes microseconds."""

_NO_LIST = "the API server's answer is not a list"

_PLAIN = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""Bytes in which no object begins or ends, including complete strings."""

_FRAME_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""Bytes in which no object and no array begins or ends, including complete strings."""

_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The inside of a string."""

_ITEMS = re.compile(rb'(?<!\\)"items"\s*+:\s*+\Z')
_KEY_WINDOW = 64


class Frame(msgspec.Struct):
    """A list without its objects. A number stands in the place of each object."""

    items: list[int] | None


class _Frame(Frame):
    metadata: ListMeta


_FRAME = msgspec.json.Decoder(_Frame)


class Splitter:
    """Reads one list, or one page of it: `split` yields its objects, `finish` returns its frame.

    The frame is the list without its objects. Between calls the splitter holds the beginning of one
    object, at most `MAX_OBJECT` bytes, and the frame, at most `MAX_FRAME` bytes. It keeps nothing
    else.

    It accepts the same lists as a decoder of the whole body. Each byte belongs to an object of
    `items` or to the frame. Each object is decoded by itself. In the frame ` 0 ` stands in the
    place of each object, and the frame is decoded at the end. If the objects and the frame are
    JSON, the list is JSON too; and if the list is JSON, they are. The reason: the splitter follows
    strings from the first byte on, and outside of strings a brace can only begin or end an object.

    It refuses a list with too many objects and arrays: over `MAX_FRAME_PARTS` in the frame, or over
    `most` objects in an object of `items`.

    It reads each byte a bounded number of times. The regular expressions never go back to another
    choice. Each match begins where the last one ended. Only a string that does not end in its piece
    is read twice.
    """

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._parts = 0  # objects in the object that has begun
        self._frame_parts = 0
        self._depth = 0  # objects around the present position
        self._arrays = 0  # arrays around it, in the frame's own object
        self._in_items = False
        self._in_text = False
        self._escape = False  # the last byte was a backslash in a string
        self._object: list[bytes] | None = None  # the beginning of an object that has not ended
        self._object_size = 0
        self.count = 0  # objects that have ended
        self._frame = bytearray()

    def __repr__(self) -> str:
        return f"<Splitter {self.count} objects>"

    def split(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yield the objects that end in it. Raises ApiError."""
        at = start = 0  # `start`: the first byte that is not kept yet
        while at < len(data):
            if self._in_text:
                at = self._end_of_text(data, at)
                continue
            framing = self._depth == 1 and self._object is None
            at = (_FRAME_PLAIN if framing else _PLAIN).match(data, at).end()  # type: ignore[union-attr] # it matches nothing, too
            if at == len(data):
                break
            match data[at : at + 1]:
                case b'"':
                    self._in_text = True
                case b"[":
                    self._keep(data[start:at])
                    start = at
                    self._arrays += 1
                    self._count_part()
                    tail = bytes(self._frame[-_KEY_WINDOW:])
                    self._in_items = self._arrays == 1 and _ITEMS.search(tail) is not None
                case b"]":
                    self._arrays -= 1
                    self._in_items = False
                case b"{":
                    if framing and self._in_items:
                        self._keep(data[start:at])
                        self._object, self._object_size, start = [], 0, at
                        self._parts = 0
                    self._count_part()
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._depth == 1 and self._object is not None:
                        self._keep(data[start : at + 1])
                        start = at + 1
                        yield self._taken()
            at += 1
        self._keep(data[start:])

    def finish(self, decoder: msgspec.json.Decoder[_F]) -> _F:
        """Return the frame of the complete list. Raises ApiError if it is not a list."""
        if self._object is not None:
            raise ApiError(200, "garbage", _NO_LIST)
        frame = decode(decoder, self._frame, _NO_LIST)
        if len(frame.items or ()) != self.count:
            raise ApiError(200, "garbage", _NO_LIST)
        return frame

    def _count_part(self) -> None:
        """Count an object or array that begins. Raises ApiError if there are too many."""
        if self._object is None:
            self._frame_parts += 1
        else:
            self._parts += 1
        if self._frame_parts > MAX_FRAME_PARTS or self._parts > self._most:
            raise ApiError(200, "garbage", _NO_LIST)

    def _end_of_text(self, data: bytes, at: int) -> int:
        """Return the position behind the quote that ends an open string, or behind the piece."""
        if self._escape:
            self._escape = False
            at += 1
        end = _TEXT.match(data, at).end()  # type: ignore[union-attr] # it matches nothing, too
        if data[end : end + 1] == b'"':
            self._in_text = False
        elif end < len(data):
            self._escape = True  # a backslash at the end
        return end + 1

    def _keep(self, piece: bytes) -> None:
        """Add bytes to the object that has begun, else to the frame. Raises ApiError."""
        if self._object is None:
            self._frame += piece
            if len(self._frame) > MAX_FRAME:
                raise ApiError(200, "garbage", _NO_LIST)
            return
        self._object.append(piece)
        self._object_size += len(piece)
        if self._object_size > MAX_OBJECT:
            message = f"an object of the API server's list is longer than {MAX_OBJECT} bytes"
            raise ApiError(200, "garbage", message)

    def _taken(self) -> bytes:
        """Return the object that has ended, and put its placeholder into the frame."""
        taken = b"".join(self._object or ())
        self._object = None
        self.count += 1
        self._frame += b" 0 "
        return taken


class ListReader:
    """Reads one list, or one page of it: `feed` yields objects, `finish` returns the metadata."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def __repr__(self) -> str:
        return f"<ListReader {self._splitter.count} objects>"

    def feed(self, data: bytes) -> Iterator[list[ObjectMeta]]:
        """Take the next piece; yield its objects, at most `SLICE` at once. Raises ApiError."""
        objects = self._splitter.split(data)
        while some := [decode_object(each, _NO_LIST).kept() for each in islice(objects, SLICE)]:
            yield some

    def raw(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yield its objects as they are. Raises ApiError."""
        return self._splitter.split(data)

    def finish(self) -> ListMeta:
        """Return the metadata of the complete list. Raises ApiError if it is not a list."""
        return self._splitter.finish(_FRAME).metadata
