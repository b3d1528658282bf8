"""The labels of one node's pods, as bytes that one look-up finds for a sample.

Knows what a rule makes of a pod, how long a pod that left the list is remembered, and how many
bytes the pods of a node may take. Must not know where a list comes from, or the form of a sample.
It reads no clock: callers pass the time in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from kmproxy.config.pod_labels import WORKLOAD, WORKLOAD_TYPE, PodConfig
from kmproxy.errors import UpstreamError
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.kube.pod_list import CONFIG_SOURCE, PodListReader, PodMeta
from kmproxy.labels.rendering import Choice, label_bytes, render_pairs
from kmproxy.labels.workloads import workload

RETENTION = 300.0
"""Seconds for which a pod that left the list keeps its labels."""

MAX_MAP = 4 << 20
"""Bytes of memory for the pods of one node. 500 usual pods take a twentieth of it."""

MAX_UNKNOWN = 1 << 12
"""Unknown pods of one answer that are told apart."""

_COST = 256
"""Bytes of memory that a pod takes in addition to its name and its labels."""

MAX_RANKED = 64
"""Characters by which creation times, and UIDs, of pods with one name are told apart."""

_EMPTY: dict[bytes, bytes] = {}


class _Annotations(msgspec.Struct):
    source: str = msgspec.field(default="", name=CONFIG_SOURCE)


class _Meta(PodMeta, rename="camel"):
    annotations: _Annotations | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None

    @property
    def rank(self) -> tuple[bool, str, str]:
        """Of two pods with one name the one of the higher rank counts: the newer one.

        A rank is kept for each pod of a list, so it holds the beginnings of its texts only.
        """
        created = (self.creation_timestamp or "")[:MAX_RANKED]
        return self.deletion_timestamp is None, created, self.uid[:MAX_RANKED]


class _Pod(msgspec.Struct):
    metadata: _Meta


_POD = msgspec.json.Decoder(_Pod)


@dataclass(slots=True, eq=False)
class PodListing:
    """The labels of listed pods, by namespace and name. Pods with equal labels share them.

    `size` is the memory in bytes, at most. `left_out` counts values that are too long.
    """

    rendered: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    size: int = 0
    longest: int = 0
    left_out: int = 0
    _shared: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of pods."""
        return sum(map(len, self.rendered.values()))

    def put(self, namespace: bytes, pod: bytes, labels: bytes) -> None:
        """Add a pod, or change the labels of one."""
        if (shared := self._shared.get(labels)) is None:
            shared = self._shared[labels] = labels
            self.size += len(labels) + _COST
            self.longest = max(self.longest, len(labels))
        names = self.rendered.setdefault(namespace, {})
        if not names:
            self.size += len(namespace) + _COST
        if pod not in names:
            self.size += len(pod) + _COST
        names[pod] = shared


class PodLabelReader:
    """Reads a PodList in pieces, and renders what the rules ask for. Nothing else is kept.

    Both methods raise UpstreamError if the data is not a PodList, or if the labels take more than
    `MAX_MAP` bytes. A value of more than `max_value` bytes of UTF-8 is left out. So is one that
    would make the labels of a pod longer than those of a namespace may be.
    """

    def __init__(self, config: PodConfig, *, max_value: int) -> None:
        self._config = config
        self._max_value = max_value
        self._reader = PodListReader(_POD)
        self._listing = PodListing()
        self._ranks: dict[tuple[bytes, bytes], tuple[bool, str, str]] = {}

    def __repr__(self) -> str:
        return f"<PodLabelReader {self._reader!r}>"

    def add(self, data: bytes | msgspec.Raw) -> PodListing:
        """Read one pod by itself, and return all so far. Raises UpstreamError."""
        try:
            self._add(_POD.decode(data))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise UpstreamError("garbage", "a pod is not one") from error
        return self._listing

    def feed(self, data: bytes) -> None:
        """Read the next piece."""
        for pod in self._reader.feed(data):
            self._add(pod)

    def finish(self) -> PodListing:
        """End the list. Returns its pods."""
        self._reader.finish()
        return self._listing

    def _add(self, pod: _Pod) -> None:
        meta, listing = pod.metadata, self._listing
        key = meta.namespace.encode(errors="replace"), meta.name.encode(errors="replace")
        if key in self._ranks and self._ranks[key] > meta.rank:
            return
        self._ranks[key] = meta.rank
        listing.put(*key, self._rendered(meta))
        if listing.size > MAX_MAP:
            raise UpstreamError("too_large", f"the labels of the pods are over {MAX_MAP} bytes")

    def _rendered(self, meta: _Meta) -> bytes:
        chosen = Choice(self._max_value, label_bytes(self._max_value))
        for name, value in self._values(meta):
            if value and chosen.admits(name, value):
                chosen.pairs[name] = value
        self._listing.left_out += chosen.too_long + chosen.too_many
        return render_pairs(chosen.pairs)

    def _values(self, meta: _Meta) -> Iterator[tuple[str, str]]:
        for rule in self._config.rules:
            yield rule.name, meta.labels.get(rule.key, "")
        if self._config.workload:
            found = workload(meta, meta.annotations.source if meta.annotations else "")
            yield WORKLOAD, found.name
            yield WORKLOAD_TYPE, found.type


class PodMap:
    """Maps the namespace and name of a pod of one node to the bytes that its samples get.

    There is one writer; readers call `lookup`. `swap` exchanges the whole map at once. Times are
    seconds of one clock that does not go back.
    """

    def __init__(self) -> None:
        self._held = PodListing()
        self._gone: dict[tuple[bytes, bytes], float] = {}  # forgotten then; the soonest is first

    def __repr__(self) -> str:
        return f"<PodMap {len(self)} pods, {len(self._gone)} gone, {self.size} bytes>"

    def __len__(self) -> int:
        """The number of pods, with those that left the list and keep their labels."""
        return len(self._held)

    @property
    def gone(self) -> int:
        """The number of pods that left the list and keep their labels."""
        return len(self._gone)

    @property
    def size(self) -> int:
        """Bytes of memory, at most."""
        return self._held.size + _COST * len(self._gone)

    @property
    def longest(self) -> int:
        """Bytes of the longest labels of a pod."""
        return self._held.longest

    @property
    def left_out(self) -> int:
        """The number of values that the rules ask for and samples do not get."""
        return self._held.left_out

    def lookup(self, namespace: bytes, pod: bytes) -> bytes | None:
        """The pairs of a pod, each with its leading comma, or None for a pod that is not known."""
        return self._held.rendered.get(namespace, _EMPTY).get(pod)

    def swap(self, listing: PodListing, now: float) -> None:
        """Replace all pods by a list, and take ownership of it.

        A pod that left the list keeps its labels for `RETENTION`. Of those pods the ones that left
        first are forgotten if the map would take more than `MAX_MAP` bytes.
        """
        before, listed = self._held.rendered, listing.rendered
        left = {
            (namespace, pod): self._gone.get((namespace, pod), now + RETENTION)
            for namespace, names in before.items()
            for pod in names
            if pod not in listed.get(namespace, _EMPTY)
        }
        gone: dict[tuple[bytes, bytes], float] = {}
        for key, forget_at in sorted(left.items(), key=lambda item: item[1], reverse=True):
            namespace, pod = key
            if forget_at <= now or listing.size + _COST * len(gone) > MAX_MAP:
                break
            listing.put(namespace, pod, before[namespace][pod])
            gone[key] = forget_at
        self._held, self._gone = listing, dict(reversed(gone.items()))

    def expire(self, now: float) -> None:
        """Forget the pods whose time of retention is over."""
        while self._gone and next(iter(self._gone.values())) <= now:
            namespace, pod = key = next(iter(self._gone))
            names = self._held.rendered[namespace]
            del names[pod], self._gone[key]
            if not names:
                del self._held.rendered[namespace]


class AnswerPods:
    """The look-up of pods for one answer of a kubelet.

    `listed` is whether a list was asked for after the answer had begun. Before, an unknown pod may
    be a new one, and `lookup` raises PodsNeededError. After it, the pod's sample is left out, or
    with `keep` it passes without the labels of pods. `note` is called once for each unknown pod,
    of `MAX_UNKNOWN` at most.
    """

    def __init__(self, pods: PodMap, *, keep: bool, note: Callable[[], None]) -> None:
        self._pods = pods
        self._otherwise = b"" if keep else None
        self._note = note
        self._unknown: set[int] = set()  # hashes, as a name may be long
        self.listed = False

    def __repr__(self) -> str:
        return f"<AnswerPods of {self._pods!r}, {'listed' if self.listed else 'not listed'}>"

    def lookup(self, namespace: bytes, pod: bytes) -> bytes | None:
        """The pairs to add to a sample, or None if it is left out. Raises PodsNeededError."""
        found = self._pods.lookup(namespace, pod)
        if found is not None:
            return found
        if not self.listed:
            raise PodsNeededError
        key = hash((namespace, pod))
        if key not in self._unknown and len(self._unknown) < MAX_UNKNOWN:
            self._unknown.add(key)
            self._note()
        return self._otherwise
