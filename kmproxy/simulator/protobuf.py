"""The part of Kubernetes' protobuf that `kubectl create namespace` uses: a Namespace's metadata.

Reads bytes, writes nothing. Must not know requests, stored objects, or anything of the proxy under
test.
"""

from __future__ import annotations

from collections.abc import Iterator

from kmproxy.simulator.objects import Object

MAGIC = b"k8s\x00"
"""The bytes at the front of every object."""

# The numbers of fields, from Kubernetes' generated.proto files.
_TYPE, _RAW = 1, 2  # of runtime.Unknown
_VERSION, _KIND = 1, 2  # of runtime.TypeMeta
_METADATA = 1  # of Namespace
_NAME, _LABELS, _ANNOTATIONS = 1, 11, 12  # of ObjectMeta
_KEY, _VALUE = 1, 2  # of an entry of a map

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # the encodings of a field's value


class UnsupportedKindError(ValueError):
    """An object of a kind that can be read only as JSON."""


def namespace(body: bytes) -> Object:
    """Return the Namespace in a body: its name, labels and annotations.

    Raises UnsupportedKindError for another kind, ValueError if the body is no protobuf.
    """
    if not body.startswith(MAGIC):
        raise ValueError("the first bytes are not those of Kubernetes' protobuf")
    unknown = _fields(body[len(MAGIC) :])
    kind = _fields(_last(unknown, _TYPE))
    named = _text(_last(kind, _VERSION)), _text(_last(kind, _KIND))
    if named != ("v1", "Namespace"):
        raise UnsupportedKindError(f"{named[1] or 'an object without a kind'} in {named[0]!r}")
    given = _fields(_last(_fields(_last(unknown, _RAW)), _METADATA))
    metadata: Object = {"name": _text(_last(given, _NAME))}
    for key, number in (("labels", _LABELS), ("annotations", _ANNOTATIONS)):
        entries = [_fields(entry) for at, entry in given if at == number]
        if entries:
            metadata[key] = {_text(_last(e, _KEY)): _text(_last(e, _VALUE)) for e in entries}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Return the number and value of each field that holds bytes, in the order of the message."""
    return list(_read(message))


def _read(message: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        how = tag & 7
        if how == _VARINT:
            _, at = _varint(message, at)
            continue
        if how == _BYTES:
            size, at = _varint(message, at)
        elif how in (_FIXED32, _FIXED64):
            size = 4 if how == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the unknown type {how}")
        end = at + size
        if end > len(message):
            raise ValueError("it ends inside a field")
        if how == _BYTES:
            yield tag >> 3, message[at:end]
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends inside a number")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number is too long")


def _last(fields: list[tuple[int, bytes]], number: int) -> bytes:
    """Return the last value of a field, which is the valid one, or empty bytes if it has none."""
    return next((value for at, value in reversed(fields) if at == number), b"")


def _text(value: bytes) -> str:
    return value.decode()  # an UnicodeDecodeError is a ValueError
