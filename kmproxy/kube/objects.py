"""The documents of the API server that all kinds share: metadata of objects and lists, and Status.

Must not know how a document arrives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from kmproxy.errors import ApiError

_T = TypeVar("_T")

RETRY_AFTER_LIMIT = 60.0
"""The longest wait in seconds that the API server can ask for. A longer one is cut to this."""

_REASON = re.compile(r"[A-Za-z]{1,40}")


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """The metadata of a namespace, a node or another object: its name, labels and annotations."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class Meta(msgspec.Struct, rename="camel"):
    """The metadata of an object as the API server sends it."""

    name: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def kept(self) -> ObjectMeta:
        """Return the metadata without the resource version."""
        return ObjectMeta(self.name, self.labels or {}, self.annotations or {})


class _Object(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


class ListMeta(msgspec.Struct, rename="camel"):
    """The metadata of a list: its resource version, and the token for the next page, if any."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


_OBJECT = msgspec.json.Decoder(_Object)


def decode(
    decoder: msgspec.json.Decoder[_T], data: bytes | bytearray | msgspec.Raw, otherwise: str
) -> _T:
    """Decode `data`. Raises ApiError with the message `otherwise`."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(200, "garbage", otherwise) from error


def decode_object(data: bytes | msgspec.Raw, otherwise: str) -> Meta:
    """Decode the metadata of an object. Raises ApiError with the message `otherwise`."""
    return decode(_OBJECT, data, otherwise).metadata


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(_Status)


def parse_status(code: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """Return the error for an error response or event. `body` is a `Status`, or anything else."""
    try:
        status = decode(_STATUS, body, "no Status")
    except ApiError:
        status = _Status()
    seconds = status.details.retry_after_seconds if status.details else 0.0
    if retry_after and retry_after.isdecimal():
        seconds = float(retry_after)
    return ApiError(
        status.code if status.code >= 400 else code,  # the code 200 would mean a message of our own
        status.reason if _REASON.fullmatch(status.reason) else f"http_{code}",
        status.message or f"HTTP status {code}",
        retry_after=min(seconds, RETRY_AFTER_LIMIT) if seconds > 0 else None,
    )
