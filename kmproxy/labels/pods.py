"""The labels of one node's pods, as bytes that one look-up finds for a sample.

Knows what a rule makes of a pod, how long a pod that left the list is remembered, and how many
bytes the pods of a node may take. Must not know where a list comes from, or the form of a sample.
It reads no clock: callers pass the time in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from kmproxy.config.pod_labels import WORKLOAD, WORKLOAD_TYPE, PodConfig
from kmproxy.errors import UpstreamError
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.kube.pod_list import CONFIG_SOURCE, PodListReader, PodMeta, Unread
from kmproxy.labels.rendering import Choice, label_bytes, render_pairs
from kmproxy.labels.workloads import workload

RETENTION = 300.0
"""Seconds for which a pod that left the list keeps its labels."""

MAX_MAP = 4 << 20
"""Bytes of memory for the pods of one node. 500 usual pods take a twentieth of it."""

MAX_UNKNOWN = 1 << 12
"""Unknown pods of one answer that are told apart."""

MAX_EARLIER = 1 << 18
"""Bytes of memory for earlier labels of the pods of one node: 400 changes of usual labels."""

_COST = 256
"""Bytes of memory that a pod takes in addition to its name and its labels."""

STEP = 50
"""Pods that are read in one step. They take a millisecond."""

MAX_RANKED = 64
"""Characters by which creation times, and UIDs, of pods with one name are told apart."""

_Rendered = dict[bytes, dict[bytes, bytes]]
"""The bytes that samples get, by namespace and pod."""

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

    rendered: _Rendered = field(default_factory=dict)
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

    Its methods raise UpstreamError if the data is not a PodList, or if the labels take more than
    `MAX_MAP` bytes. A value of more than `max_value` bytes of UTF-8 is left out. So is one that
    would make the labels of a pod longer than those of a namespace may be.
    """

    def __init__(self, config: PodConfig, *, max_value: int) -> None:
        self._config = config
        self._max_value = max_value
        self._reader = PodListReader(_POD, whole=True)
        self._ended = False
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

    def end(self) -> Iterator[None]:
        """End the list in steps, between which the event loop may serve others."""
        self._ended = True
        for number, pod in enumerate(self._reader.finish(), 1):
            self._add(pod)
            if not number % STEP:
                yield

    def finish(self) -> PodListing:
        """End the list, unless `end` did. Returns its pods."""
        if not self._ended:
            for _ in self.end():
                pass
        return self._listing

    def _add(self, pod: _Pod | Unread) -> None:
        meta = pod if isinstance(pod, Unread) else pod.metadata
        key = meta.namespace.encode(errors="replace"), meta.name.encode(errors="replace")
        if key in self._ranks and self._ranks[key] > meta.rank:
            return
        self._ranks[key] = meta.rank
        self._listing.put(*key, self._rendered(meta))
        if self._listing.size > MAX_MAP:
            raise UpstreamError("too_large", f"the labels of the pods are over {MAX_MAP} bytes")

    def _rendered(self, meta: _Meta | Unread) -> bytes:
        if isinstance(meta, Unread):  # its samples get no labels of pods
            self._listing.left_out += 1
            return b""
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


class _Earlier(NamedTuple):
    """Labels that a pod had. The last list that had them was `asked` for at this time."""

    asked: float
    labels: bytes
    forget_at: float


class PodMap:
    """Maps the namespace and name of a pod of one node to the bytes that its samples get.

    There is one writer; readers call `lookup`. `swap` exchanges the whole map at once. Times are
    seconds of one clock that does not go back.

    Labels that another list replaced are remembered for `RETENTION`, in `MAX_EARLIER` bytes. An
    answer that is older than the newest list still gets them: since then a new pod may have got the
    name of a deleted one.
    """

    def __init__(self) -> None:
        self._held = PodListing()
        self._asked = -math.inf  # when the last list was asked for
        self._gone: dict[tuple[bytes, bytes], float] = {}  # forgotten then; the soonest is first
        self._earlier: dict[tuple[bytes, bytes], tuple[_Earlier, ...]] = {}  # the last one is last
        self._changes: deque[tuple[tuple[bytes, bytes], _Earlier]] = deque()  # the oldest is first
        self._earlier_size = 0

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
        return self._held.size + _COST * len(self._gone) + self._earlier_size

    @property
    def longest(self) -> int:
        """Bytes of the longest labels of a pod."""
        return self._held.longest

    @property
    def left_out(self) -> int:
        """The number of values that the rules ask for and samples do not get."""
        return self._held.left_out

    def lookup(self, namespace: bytes, pod: bytes, began: float = math.inf) -> bytes | None:
        """The pairs of a pod, each with its leading comma, or None for a pod that is not known.

        They are those of the first list that was asked for after an answer `began`, or of the
        newest list if that one is older.
        """
        if began <= self._asked and self._earlier:
            for each in self._earlier.get((namespace, pod), ()):
                if began <= each.asked:
                    return each.labels
        return self._held.rendered.get(namespace, _EMPTY).get(pod)

    def swap(self, listing: PodListing, now: float, asked: float | None = None) -> None:
        """Replace all pods by a list, and take ownership of it. It was `asked` for then, or now.

        A pod that left the list keeps its labels for `RETENTION`. Of those pods the ones that left
        first are forgotten if the map would take more than `MAX_MAP` bytes.
        """
        before, listed, longest = self._held.rendered, listing.rendered, self._held.longest
        self._remember(before, listed, now)
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
        self._asked = now if asked is None else asked
        if self._changes:
            listing.longest = max(listing.longest, longest)

    def _remember(self, before: _Rendered, listed: _Rendered, now: float) -> None:
        """Remember the labels that a list replaces."""
        for namespace, names in before.items():
            new = listed.get(namespace, _EMPTY)
            for pod, labels in names.items():
                if new.get(pod, labels) != labels:
                    key, each = (namespace, pod), _Earlier(self._asked, labels, now + RETENTION)
                    self._earlier[key] = (*self._earlier.get(key, ()), each)
                    self._changes.append((key, each))
                    self._earlier_size += 2 * _COST + len(pod) + len(labels)
        while self._earlier_size > MAX_EARLIER:
            self._forget_change()

    def _forget_change(self) -> None:
        key, each = self._changes.popleft()
        self._earlier_size -= 2 * _COST + len(key[1]) + len(each.labels)
        self._earlier[key] = self._earlier[key][1:]
        if not self._earlier[key]:
            del self._earlier[key]

    def expire(self, now: float) -> None:
        """Forget the pods whose time of retention is over, and labels replaced as long ago."""
        while self._changes and self._changes[0][1].forget_at <= now:
            self._forget_change()
        while self._gone and next(iter(self._gone.values())) <= now:
            namespace, pod = key = next(iter(self._gone))
            names = self._held.rendered[namespace]
            del names[pod], self._gone[key]
            if not names:
                del self._held.rendered[namespace]


class AnswerPods:
    """The look-up of pods for one answer of a kubelet, which began at a time of the map's clock.

    A known name may belong to a new pod: a StatefulSet gives its new pods the names of the deleted
    ones. So the first `lookup` raises PodsNeededError, for any pod. After `use_list` the pods are
    those of a list that was asked for after the answer had begun. An unknown pod's sample is left
    out, or with `keep` it passes without the labels of pods. `note` is called once for each unknown
    pod, of `MAX_UNKNOWN` at most.

    After `use_known`, the pods of earlier lists are used. A pod that they do not have raises
    PodsNeededError again.
    """

    def __init__(self, pods: PodMap, began: float, *, keep: bool, note: Callable[[], None]) -> None:
        self._pods = pods
        self._began = began
        self._otherwise = b"" if keep else None
        self._note = note
        self._unknown: set[int] = set()  # hashes, as a name may be long
        self.asked = False
        """Whether a list was asked for, good or failed."""
        self._listed = False

    def __repr__(self) -> str:
        return f"<AnswerPods of {self._pods!r}, {'listed' if self._listed else 'not listed'}>"

    def use_list(self) -> None:
        """Go on with a list that was asked for after the answer had begun."""
        self.asked = self._listed = True

    def use_known(self) -> None:
        """Go on without such a list, as long as every pod is known."""
        self.asked = True

    def lookup(self, namespace: bytes, pod: bytes) -> bytes | None:
        """The pairs to add to a sample, or None if it is left out. Raises PodsNeededError."""
        if not self.asked:
            raise PodsNeededError
        found = self._pods.lookup(namespace, pod, self._began)
        if found is not None:
            return found
        if not self._listed:
            raise PodsNeededError
        key = hash((namespace, pod))
        if key not in self._unknown and len(self._unknown) < MAX_UNKNOWN:
            self._unknown.add(key)
            self._note()
        return self._otherwise
