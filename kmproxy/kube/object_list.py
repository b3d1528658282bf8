"""Lists of the API server, read while they come: of each object just its metadata.

Knows the JSON of objects and of lists of them. Must not know what is listed or
when, nor sockets. A list may be of any length: the server's cache gives all
objects on one page, whatever is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Frame")

SLICE = 100
"""Objects that are decoded at once, in under a millisecond if they are of the usual size: a scrape
takes several turns of the event loop."""

MAX_OBJECT = 8 << 20
"""Bytes of the longest object or watch event; etcd holds objects of 1.5 MB at most."""

MAX_FRAME = 4 << 20
"""Bytes of all that is not of an object of a list: two for each object, and its metadata."""

_NO_LIST = "the API server's list is not one"

_PLAIN = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""As far as no object begins or ends, with the strings that end."""

_FRAME_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""The same, as far as no array does either."""

_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The inside of a string."""

_ITEMS = re.compile(rb'(?<!\\)"items"\s*+:\s*+\Z')
_KEY_WINDOW = 64


class Meta(msgspec.Struct, rename="camel"):
    """An object's metadata."""

    name: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def namespace(self) -> Namespace:
        """It as a namespace's."""
        return Namespace(self.name, self.labels or {}, self.annotations or {})


class _Object(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


class ListMeta(msgspec.Struct, rename="camel"):
    """A list's metadata: the version it is of, and what asks for the next page, if any."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Frame(msgspec.Struct):
    """A list without its objects, each of which is a number here."""

    items: list[int] | None


class _Frame(Frame):
    metadata: ListMeta


_OBJECT = msgspec.json.Decoder(_Object)
_FRAME = msgspec.json.Decoder(_Frame)


def decode(
    decoder: msgspec.json.Decoder[_T], data: bytes | bytearray | msgspec.Raw, otherwise: str
) -> _T:
    """What the decoder makes of `data`. Raises ApiError, saying `otherwise`."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(200, "garbage", otherwise) from error


def decode_object(data: bytes | msgspec.Raw, otherwise: str) -> Meta:
    """The metadata of an object. Raises ApiError, saying `otherwise`."""
    return decode(_OBJECT, data, otherwise).metadata


class Splitter:
    """Reads one list, or one page of it: `split` gives its objects, `finish` what is left.

    Between calls it holds the beginning of one object, `MAX_OBJECT` bytes at
    most, and the frame: the list without its objects, `MAX_FRAME` bytes at most.
    Whatever else has come is gone.

    It accepts what a decoder of the whole would. A byte belongs to an object of
    `items`, which is decoded by itself, or to the frame, in which ` 0 ` stands
    for each object and which is decoded at the end: if both are JSON so is the
    list, and the other way round, for outside of strings, which are told from
    the beginning on, a brace can only begin or end an object.

    Every byte is gone over a bounded number of times: the expressions have no
    choice to come back to, each match begins where the last one ended, and only
    a string that a piece of input does not end is looked at twice.
    """

    def __init__(self) -> None:
        self._depth = 0  # objects around the place reached
        self._arrays = 0  # arrays around it in the frame's own object
        self._in_items = False
        self._in_text = False
        self._escape = False  # the last byte was a backslash in a string
        self._object: list[bytes] | None = None  # what has come of an object
        self._object_size = 0
        self.count = 0  # objects that have ended
        self._frame = bytearray()

    def __repr__(self) -> str:
        return f"<Splitter {self.count} objects>"

    def split(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece; yield the objects that end in it. Raises ApiError."""
        at = start = 0  # `start`: where what is still to be kept begins
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
                    tail = bytes(self._frame[-_KEY_WINDOW:])
                    self._in_items = self._arrays == 1 and _ITEMS.search(tail) is not None
                case b"]":
                    self._arrays -= 1
                    self._in_items = False
                case b"{":
                    if framing and self._in_items:
                        self._keep(data[start:at])
                        self._object, self._object_size, start = [], 0, at
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
        """The list is complete: its frame. Raises ApiError if it is none."""
        if self._object is not None:
            raise ApiError(200, "garbage", _NO_LIST)
        frame = decode(decoder, self._frame, _NO_LIST)
        if len(frame.items or ()) != self.count:
            raise ApiError(200, "garbage", _NO_LIST)
        return frame

    def _end_of_text(self, data: bytes, at: int) -> int:
        """Where a string that began before ends, behind its quote, or the piece does."""
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
        """Hold what belongs to the object that has begun, else to the frame. Raises ApiError."""
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
        """The object that has ended."""
        taken = b"".join(self._object or ())
        self._object = None
        self.count += 1
        self._frame += b" 0 "
        return taken


class ListReader:
    """Reads one list, or one page of it: `feed` gives its objects, `finish` its metadata."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def __repr__(self) -> str:
        return f"<ListReader {self._splitter.count} objects>"

    def feed(self, data: bytes) -> Iterator[list[Namespace]]:
        """Take the next piece; yield its objects, `SLICE` at most at once. Raises ApiError."""
        objects = self._splitter.split(data)
        while some := [
            decode_object(each, _NO_LIST).namespace() for each in islice(objects, SLICE)
        ]:
            yield some

    def finish(self) -> ListMeta:
        """The list is complete. Raises ApiError if it is none."""
        return self._splitter.finish(_FRAME).metadata
