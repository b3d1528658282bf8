"""Reads a kubelet's PodList while it arrives, and hands on one pod after the other.

Knows the JSON of a PodList, and the metadata of a pod that more than one reader needs. Must not
know what a reader keeps of a pod, or sockets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Generic, TypeVar

import msgspec

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.object_list import Frame, Splitter

CONFIG_SOURCE = "kubernetes.io/config.source"
"""The annotation with which a kubelet notes where it has a pod from. It overwrites any other."""

_T = TypeVar("_T")
_FRAME = msgspec.json.Decoder(Frame)


MAX_PARTS = 100_000
"""Objects in the JSON of one pod that is read. An empty one takes 70 bytes of memory and more."""

MAX_WRITTEN = 500_000
"""Objects in the JSON of one pod that etcd may hold. By default it takes 1.5 MiB, and an object has
4 bytes there at least."""

MAX_LABELS = 1 << 20
"""Bytes of JSON of the labels of one pod that is read."""

WHOLE = 2 << 20
"""Bytes of the longest list that is decoded at once, in a few milliseconds. Lists of 250 pods are
shorter. A longer one is split into its pods first, which takes five times as long."""

MAX_COMMAS = 100_000
"""Commas in a list that is decoded at once: each may end a value, and each value takes memory."""

_TEXTS = msgspec.json.Decoder(dict[str, str] | None)


# `kind` and `name` are in every reference. If they were optional, a hostile kubelet could send
# millions of references of two bytes, `{}`, and each takes 70 bytes of memory.
class Owner(msgspec.Struct, gc=False):
    """A reference to an owner of a pod. At most one owner is the controller."""

    kind: str
    name: str
    controller: bool | None = None


class PodMeta(msgspec.Struct, rename="camel", dict=True):
    """The metadata of a pod, without annotations. Labels that are not texts make it none."""

    name: str
    namespace: str = ""
    uid: str = ""
    raw_labels: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="labels")
    owner_references: list[Owner] | None = None

    def __post_init__(self) -> None:
        _ = self.labels

    @cached_property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return texts(self.raw_labels, MAX_LABELS)

    @property
    def controller(self) -> Owner | None:
        """The owner that controls the pod, or None."""
        return next((owner for owner in self.owner_references or () if owner.controller), None)


def texts(data: msgspec.Raw, limit: int) -> dict[str, str]:
    """Read a mapping of texts, which may be absent.

    Raises TooLargeError over `limit` bytes of JSON. A pair of 8 bytes takes 130 bytes of memory.
    """
    if len(data) > limit:
        raise TooLargeError(f"a mapping of a pod has more than {limit} bytes")
    return (_TEXTS.decode(data) or {}) if data else {}


class _List(msgspec.Struct):
    items: list[msgspec.Raw] | None


_LIST = msgspec.json.Decoder(_List)


class TooLargeError(ValueError):
    """A mapping of a pod has more bytes than are read."""


class Unread(msgspec.Struct, gc=False):
    """The name of a pod that is too large to be read."""

    name: str
    namespace: str = ""

    @property
    def rank(self) -> tuple[bool, str, str]:
        """Less than that of any pod that is read and has the same name."""
        return False, "", ""


class _UnreadPod(msgspec.Struct, gc=False):
    metadata: Unread


_UNREAD = msgspec.json.Decoder(_UnreadPod)


class PodListReader(Generic[_T]):
    """Reads a PodList in pieces. `decoder` reads each pod.

    A pod that is too large is not read: its name comes as `Unread`. etcd takes such pods, and who
    creates one must not make the list of a node fail.

    With `whole`, a list of at most `WHOLE` bytes is held, and its pods come at the end. Otherwise
    each pod comes with the piece that ends it, and little is left for the end.

    Both methods raise UpstreamError if the data is not a PodList. So a list that kmproxy does not
    understand completely never counts as an empty list.
    """

    def __init__(self, decoder: msgspec.json.Decoder[_T], *, whole: bool = False) -> None:
        self._decoder = decoder
        self._splitter = Splitter(MAX_WRITTEN)
        self._held = bytearray() if whole else None  # bytes that were not read yet
        self._long = False  # whether the list is too long to be decoded at once

    def __repr__(self) -> str:
        return f"<PodListReader {self._splitter.count} pods, {len(self._held or b'')} bytes held>"

    def feed(self, data: bytes) -> Iterator[_T | Unread]:
        """Read the next piece. Yields the pods that end in it, unless it is held."""
        if self._held is not None:
            self._held += data
            self._long = self._long or len(self._held) > WHOLE
            if not self._long:
                return
            # All at once would take long. So it shrinks by as much as arrives.
            data = bytes(self._held[: 2 * len(data)])
            del self._held[: len(data)]
        yield from self._split(data)

    def finish(self) -> Iterator[_T | Unread]:
        """End the list. Yields the rest of its pods."""
        data, self._held = self._held, None
        if data is None:
            with _garbage():
                self._splitter.finish(_FRAME)
            return
        if self._long or data.count(b",") > MAX_COMMAS:
            yield from self._split(bytes(data))
            yield from self.finish()
            return
        with _garbage():
            yield from map(self._decode, _LIST.decode(data).items or ())

    def _split(self, data: bytes) -> Iterator[_T | Unread]:
        with _garbage():
            yield from map(self._decode, self._splitter.split(data))

    def _decode(self, pod: bytes | msgspec.Raw) -> _T | Unread:
        try:
            if bytes(pod).count(b"{") <= MAX_PARTS:
                return self._decoder.decode(pod)
        except msgspec.ValidationError as error:
            if not isinstance(error.__cause__, TooLargeError):
                raise
        return _UNREAD.decode(pod).metadata


@contextmanager
def _garbage() -> Iterator[None]:
    try:
        yield
    except (ApiError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UpstreamError("garbage", "the kubelet's answer is not a list of pods") from error
