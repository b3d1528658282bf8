"""The label snapshot: the label map in a file, for a start while the API server is away.

Knows the format of the file, when it is written and when it is read. Must not know how labels are
listed, rendered or served.

The file consists of lines. The first line names the format, its version and the SHA-256 of all
further lines. The second line is a JSON document about the whole snapshot. Each further line is one
namespace with the names and values of its labels. They are checked and rendered again at a start,
so the file is good only for the same rules and the same cluster. It names both.

The file is written with mode 0600. It is read only if it is a regular file of the daemon's own
user that nobody else can write, because its content goes into samples. A user who can write the
folder can remove the file, or put back an older one that is not yet `MAX_AGE` old. That user cannot
make a file of their own that is accepted. If Kubernetes applies `fsGroup` to a volume, the group
can write the files there, so the file is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.client.tls import Trust
from kmproxy.config.label_rules import LabelRule
from kmproxy.errors import KmproxyError, SnapshotError
from kmproxy.kube.identity import Identity
from kmproxy.labels.label_map import LabelMap, Restored
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.labels.rendering import KnownLabels
from kmproxy.own_file import aside, clear_leftovers, open_own, replace_own

MAX_AGE = 24 * 3600.0
"""Seconds after which labels are too old to start with."""

PATIENCE = 5.0
"""Seconds for which the start waits while the first list neither ends nor fails. It waits at most
half of the time within which the labels have to be loaded."""

DELAY = 10.0
"""Seconds between two writes of a map that changes."""

REFRESH = 600.0
"""Seconds after which an unchanged map is written again, so that the file does not become old."""

LEFTOVER = 600.0
"""Seconds after which a new file that has not become the snapshot counts as left by a killed
process."""

MAX_FILE = 24 << 20
"""Bytes of the longest file. The labels of a map take at most 10 MiB, and little more as JSON,
unless they consist of control characters. While the file is replaced, two files exist. The volume
of the shipped component has 64 MiB, beyond which its pod would be evicted."""

MAX_HEAD = 1 << 20
"""Bytes of the longest second line, the one about the whole snapshot."""

_FORMAT = b"kmproxy-labels"
_VERSION = b"3"
_PIECE = 1 << 16


_log = logging.getLogger(__package__)


class _Rule(msgspec.Struct, array_like=True):
    source: str
    key: str
    name: str
    default: str


class Origin(msgspec.Struct, frozen=True):
    """The cluster from which labels come: its API server and its CA.

    In a pod, `server` is the address of a Service, which is the same in most clusters. So `ca`
    tells clusters apart: it is the SHA-256 of the CA that verifies the API server, or "" if the
    identity has no CA of its own. After a rotation of the CA, an older snapshot is refused although
    its labels were good. That costs one start without labels while the API server is away, and
    only until the running daemon has written the snapshot again. The snapshot of another cluster
    would give wrong labels.
    """

    server: str
    ca: str

    @classmethod
    def of(cls, identity: Identity) -> Origin:
        """Return the cluster of an identity, by its current CA. Raises CredentialError."""
        content, *_ = Trust(identity.trust.ca).contents()
        return cls(identity.server, hashlib.sha256(content).hexdigest() if content else "")


class _Head(msgspec.Struct):
    origin: Origin
    rules: list[_Rule]
    max_value: int
    confirmed: float  # seconds since 1970
    written: float  # seconds since 1970


class _Space(msgspec.Struct, array_like=True):
    """The labels of one namespace.

    `deleted` is None for a namespace that exists. For a deleted one it is the number of seconds
    for which it was still to be remembered when the file was written.
    """

    name: str
    labels: dict[str, str]
    lacking: list[str]
    too_long: int
    too_many: int
    deleted: float | None


_HEAD = msgspec.json.Decoder(_Head)
_SPACE = msgspec.json.Decoder(_Space)


def encode(
    state: Iterable[KnownLabels],
    labels: LabelMap,
    origin: Origin,
    *,
    confirmed: float,
    written: float,
) -> list[bytes]:
    """Encode the lines of a snapshot: the state that `labels` had at the time `written`.

    `confirmed` is the time at which the API server last confirmed the labels. Both times are
    seconds since 1970. Raises SnapshotError if the lines could take more than `MAX_FILE` bytes.
    """
    head = _Head(origin, _rules(labels.rules), labels.renderer.max_value, confirmed, written)
    lines = [b"", msgspec.json.encode(head) + b"\n"]
    digest, size = hashlib.sha256(lines[1]), 0
    for known in state:
        space = _Space(
            known.namespace,
            dict(known.pairs),
            list(known.lacking),
            known.too_long,
            known.too_many,
            known.deleted,
        )
        lines.append(msgspec.json.encode(space) + b"\n")
        digest.update(lines[-1])
        size += len(lines[-1])
        if size > MAX_FILE - MAX_HEAD:
            raise SnapshotError(f"the file would be over {MAX_FILE} bytes")
    lines[0] = b"%b %b %b\n" % (_FORMAT, _VERSION, digest.hexdigest().encode())
    return lines


def decode(file: BinaryIO, labels: LabelMap, origin: Origin, now: float) -> tuple[Restored, float]:
    """Read the labels of a snapshot for a map. Return them and their age in seconds at `now`.

    Raises SnapshotError for a file that is damaged, that another program or version wrote, that
    belongs to other rules or another cluster, that is older than `MAX_AGE`, or that holds labels
    which the rules do not make. If the clock has gone back, the age is 0, never negative.
    """
    _check_whole(file)
    longest = MAX_HEAD + 8 * labels.renderer.budget  # a control character takes six bytes in JSON
    try:
        head = _HEAD.decode(file.readline(longest))
        if head.origin.server != origin.server:
            raise SnapshotError(
                f"the labels are of another API server, {head.origin.server[:200]!r}"
            )
        if head.origin != origin:
            raise SnapshotError(
                "the labels are of another cluster, or the cluster's CA has changed"
            )
        if (head.rules, head.max_value) != (_rules(labels.rules), labels.renderer.max_value):
            raise SnapshotError("the label rules have changed")
        age = max(now - head.confirmed, 0.0)
        if age > MAX_AGE:
            raise SnapshotError(f"the labels are {age / 3600:.0f} hours old")
        since = max(now - head.written, 0.0)
        spaces = map(_SPACE.decode, iter(lambda: file.readline(longest), b""))
        return labels.rendered_anew(_known(space, since) for space in spaces), age
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotError("the file is damaged: its JSON is not valid") from error


def _check_whole(file: BinaryIO) -> None:
    """Read the first line, and check the others by its checksum. Raises SnapshotError."""
    name, _, rest = file.readline(MAX_HEAD).rstrip(b"\n").partition(b" ")
    version, _, wanted = rest.partition(b" ")
    if name != _FORMAT:
        raise SnapshotError("the file is not a label snapshot")
    if version != _VERSION:
        shown = version[:20].decode("ascii", "replace")
        raise SnapshotError(f"another version of kmproxy wrote the file (format {shown!r}, not 3)")
    begin, digest = file.tell(), hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest().encode() != wanted:
        raise SnapshotError("the file is damaged: the checksum is wrong")
    file.seek(begin)


def _known(space: _Space, since: float) -> KnownLabels:
    left = None if space.deleted is None else space.deleted - since
    return KnownLabels(
        space.name, space.labels, tuple(space.lacking), space.too_long, space.too_many, left
    )


def _rules(rules: Sequence[LabelRule]) -> list[_Rule]:
    return [_Rule(rule.source, rule.key, rule.name, rule.default) for rule in rules]


class SnapshotMetrics:
    """Counts failures of the label snapshot, and shows when it was written."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.errors = Counter(
            "kmproxy_snapshot_errors",
            "Failures to read or write the label snapshot.",
            ["operation"],
            registry=registry,
        )
        self.saved = Gauge(
            "kmproxy_snapshot_saved_timestamp_seconds",
            "When kmproxy last wrote the label snapshot; 0 before the first time.",
            registry=registry,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class LabelSnapshot:
    """Keeps a label map in a file, and restores the map from it while the API server is away.

    It writes a new file, which then replaces the snapshot. So several daemons may keep the same
    snapshot: two do during a rollout on one node. If the file cannot be read or written, it writes
    a log line and counts a metric, and the daemon goes on. If the disk hangs, one thread hangs, and
    the end of the process does not wait for that thread. `timeout` is the number of seconds within
    which the labels have to be loaded.
    """

    path: Path
    identity: Identity
    labels: LabelMap
    watcher: NamespaceWatcher
    metrics: SnapshotMetrics
    timeout: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    _saved: int | None = field(init=False, default=None)  # `changes` of the map when written
    _save_by: float = field(init=False, default=0.0)
    _failing: bool = field(init=False, default=False)
    _stopping: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __repr__(self) -> str:
        return f"<LabelSnapshot {self.path}>"

    async def run(self) -> None:
        """Restore the labels if the first list fails or is late; then write the file until `stop`.

        It writes the file once more before it ends.
        """
        await self._restore()
        while not self._stopping.is_set():
            await self.save()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DELAY)
        await self.save()

    def stop(self) -> None:
        """Let `run` write the file once more and end."""
        self._stopping.set()

    async def save(self) -> None:
        """Write the file, if labels are loaded and have changed or the file needs a refresh."""
        if not self.watcher.loaded:
            return
        if self.labels.changes == self._saved and self.clock() < self._save_by:
            return
        changes, save_by = self.labels.changes, self.clock() + REFRESH
        try:
            written = self.wall()
            confirmed = written - self.watcher.sync_age
            state = self.labels.state(self.clock())
            await aside(lambda: self._write(state, confirmed, written), "label-snapshot")
        except Exception as error:  # noqa: BLE001 - after any failure labels are served, saved later
            self.metrics.errors.labels("write").inc()
            if not self._failing:
                self._tell("cannot be written", error)
            self._failing = True
            return
        self._failing = False
        self._saved, self._save_by = changes, save_by
        self.metrics.saved.set(self.wall())

    def _write(self, state: Iterator[KnownLabels], confirmed: float, written: float) -> None:
        if self._saved is None:
            clear_leftovers(self.path, written - LEFTOVER)
        origin = Origin.of(self.identity)
        replace_own(
            self.path,
            encode(state, self.labels, origin, confirmed=confirmed, written=written),
        )

    def _read(self) -> tuple[Restored, float]:
        with open_own(self.path, MAX_FILE) as file:
            return decode(file, self.labels, Origin.of(self.identity), self.wall())

    async def _restore(self) -> None:
        watcher = self.watcher
        waited_until = self.clock() + min(PATIENCE, self.timeout / 2)
        while not watcher.loaded and not watcher.away:
            if self._stopping.is_set():
                return
            if watcher.trouble is None and self.clock() >= waited_until:
                break
            await asyncio.sleep(0.05)
        if watcher.loaded:
            return
        try:
            restored, age = await aside(self._read, "label-snapshot")
        except FileNotFoundError:
            _log.info("--label-snapshot %s: the file does not exist yet", self.path)
            return
        except Exception as error:  # noqa: BLE001 - after any failure labels can still be listed
            self._tell("is not used", error)
            self.metrics.errors.labels("read").inc()
            return
        if watcher.restore(restored, age):
            _log.warning(
                "the API server is away: "
                "serving the labels of %d namespaces as they were %.0f s ago",
                len(self.labels),
                age,
            )

    def _tell(self, what: str, error: Exception) -> None:
        if isinstance(error, OSError | KmproxyError):
            reason = getattr(error, "strerror", None) or str(error)
            _log.warning("--label-snapshot %s %s: %s", self.path, what, reason)
        else:
            fault = "because of an error in kmproxy"
            _log.error("--label-snapshot %s %s %s", self.path, what, fault, exc_info=error)
