"""The label map on disk, for a start while the API server is away.

Knows the file's format, when it is written and when it is read. Must not know
how labels are listed, rendered or served.

The file is two lines: the first names the format, its version and the SHA-256
of the second, which is a JSON document. It holds rendered labels, so that it is
only good for the same rules and the same cluster, both of which it names.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

import msgspec

from kmproxy.errors import KmproxyError, SnapshotError
from kmproxy.identity import Identity
from kmproxy.labels import LabelMap, LabelRule, LabelState
from kmproxy.namespaces import NamespaceWatcher
from kmproxy.telemetry import Telemetry
from kmproxy.tls import Trust

MAX_AGE = 24 * 3600.0
"""Seconds after which labels are too old to begin with."""

PATIENCE = 5.0
"""Seconds for which a first list is waited for that neither comes nor fails, at most half of those
that it may take."""

DELAY = 10.0
"""Seconds between two writes of a map that changes."""

REFRESH = 600.0
"""Seconds after which a map that does not change is written again, to be young."""

LEFTOVER = 600.0
"""Seconds after which a new file that has not become the snapshot is a killed writer's."""

_NEW = ".new-"
_FORMAT = b"kmproxy-labels"
_VERSION = b"2"

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class _Rule(msgspec.Struct, array_like=True):
    source: str
    key: str
    name: str
    default: str


class Origin(msgspec.Struct, frozen=True):
    """The cluster that labels are of: its API server, and what tells it from others there.

    In a pod `server` is the address of a Service, the same in most clusters. So
    `ca` is the SHA-256 of the CA that verifies it, "" where that is none of its own.
    Once a CA has rotated a snapshot of before is refused, though it was good: that
    costs one start without labels while the API server is away, and only until
    the running daemon has written again. Another cluster's would be wrong labels.
    """

    server: str
    ca: str

    @classmethod
    def of(cls, identity: Identity) -> Origin:
        """The cluster of an identity, by its CA as it is now. Raises CredentialError."""
        content, *_ = Trust(identity.trust.ca).contents()
        return cls(identity.server, hashlib.sha256(content).hexdigest() if content else "")


class _Document(msgspec.Struct):
    origin: Origin
    rules: list[_Rule]
    confirmed: float  # seconds since 1970
    written: float  # the same
    labels: dict[str, str]
    deleted: dict[str, float]  # seconds left when it was written


def encode(
    state: LabelState,
    rules: Sequence[LabelRule],
    origin: Origin,
    *,
    confirmed: float,
    written: float,
) -> bytes:
    """A snapshot's bytes, of the state at `written`.

    `confirmed` is when the API server last said so; both in seconds since 1970.
    """
    document = _Document(
        origin, _rules(rules), confirmed, written, dict(state.rendered), dict(state.deleted)
    )
    body = msgspec.json.encode(document)
    digest = hashlib.sha256(body).hexdigest().encode()
    return b"%b %b %b\n%b\n" % (_FORMAT, _VERSION, digest, body)


def decode(
    data: bytes, rules: Sequence[LabelRule], origin: Origin, now: float
) -> tuple[LabelState, float]:
    """What a snapshot holds, and its age in seconds at `now`.

    Raises SnapshotError for a file that is damaged, of another program or
    version, of other rules or another cluster, or older than `MAX_AGE`. A clock
    that went back makes it no younger than new.
    """
    head, _, body = data.removesuffix(b"\n").partition(b"\n")
    name, _, rest = head.partition(b" ")
    version, _, digest = rest.partition(b" ")
    if name != _FORMAT:
        raise SnapshotError("it is not a label snapshot")
    if version != _VERSION:
        raise SnapshotError("it is of another version of kmproxy")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise SnapshotError("it is damaged: the checksum is wrong")
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotError("it is damaged: it cannot be read") from error
    if document.origin.server != origin.server:
        raise SnapshotError(f"it is of another API server, {document.origin.server}")
    if document.origin != origin:
        raise SnapshotError("it is another cluster's, or of before its CA changed")
    if document.rules != _rules(rules):
        raise SnapshotError("it was made under other label rules")
    age = max(now - document.confirmed, 0.0)
    if age > MAX_AGE:
        raise SnapshotError(f"it is {age / 3600:.0f} hours old")
    since = max(now - document.written, 0.0)
    deleted = {name: max(left - since, 0.0) for name, left in document.deleted.items()}
    return LabelState(document.labels, deleted), age


def _rules(rules: Sequence[LabelRule]) -> list[_Rule]:
    return [_Rule(rule.source, rule.key, rule.name, rule.default) for rule in rules]


class LabelSnapshot:
    """Keeps a label map in a file, and gives it back where the API server is away.

    It writes a file of its own, which then replaces the snapshot, so that several
    daemons may keep one, as two do on one node during a rollout. A file that
    cannot be read or written is a log line and a metric, never an end. For a disk
    that hangs one thread waits, and nobody for that thread. `timeout` is the
    seconds in which there must be labels.
    """

    def __init__(
        self,
        path: str,
        *,
        identity: Identity,
        labels: LabelMap,
        watcher: NamespaceWatcher,
        telemetry: Telemetry,
        timeout: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._path = Path(path)
        self._timeout = timeout
        self._identity = identity
        self._labels = labels
        self._watcher = watcher
        self._telemetry = telemetry
        self._clock = clock
        self._wall = wall
        self._saved: int | None = None  # the map's number when it was written
        self._save_by = 0.0
        self._failing = False
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<LabelSnapshot {self._path}>"

    async def run(self) -> None:
        """Give the labels back if they are missed; then keep them until `stop`."""
        await self._restore()
        while not self._stopping.is_set():
            await self.save()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DELAY)
        await self.save()

    def stop(self) -> None:
        """Let `run` write once more and end."""
        self._stopping.set()

    async def save(self) -> None:
        """Write the file, if there are labels and it would say anything new."""
        if not self._watcher.loaded:
            return
        if self._labels.changes == self._saved and self._clock() < self._save_by:
            return
        changes, save_by = self._labels.changes, self._clock() + REFRESH
        try:
            written = self._wall()
            confirmed = written - self._watcher.sync_age
            state = self._labels.state(self._clock())
            await _aside(lambda: self._write(state, confirmed, written))
        except Exception as error:  # noqa: BLE001 - whatever it is, labels are served and kept later
            self._telemetry.snapshot_errors.labels("write").inc()
            if not self._failing:
                self._tell("cannot be written", error)
            self._failing = True
            return
        self._failing = False
        self._saved, self._save_by = changes, save_by
        self._telemetry.snapshot_saved.set(self._wall())

    def _write(self, state: LabelState, confirmed: float, written: float) -> None:
        if self._saved is None:
            _clear(self._path, written - LEFTOVER)
        rules, origin = self._labels.rules, Origin.of(self._identity)
        data = encode(state, rules, origin, confirmed=confirmed, written=written)
        _replace(self._path, data)

    def _read(self) -> tuple[LabelState, float]:
        data = self._path.read_bytes()
        return decode(data, self._labels.rules, Origin.of(self._identity), self._wall())

    async def _restore(self) -> None:
        watcher = self._watcher
        waited_until = self._clock() + min(PATIENCE, self._timeout / 2)
        while not watcher.loaded and not watcher.away:
            if self._stopping.is_set():
                return
            if watcher.trouble is None and self._clock() >= waited_until:
                break
            await asyncio.sleep(0.05)
        if watcher.loaded:
            return
        try:
            state, age = await _aside(self._read)
        except FileNotFoundError:
            _log.info("--label-snapshot %s: there is none yet", self._path)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, labels can still be listed
            self._tell("is not used", error)
            self._telemetry.snapshot_errors.labels("read").inc()
            return
        if watcher.restore(state, age):
            _log.warning(
                "the API server is away: "
                "serving the labels of %d namespaces as they were %.0f s ago",
                len(self._labels),
                age,
            )

    def _tell(self, what: str, error: Exception) -> None:
        if isinstance(error, OSError | KmproxyError):
            reason = getattr(error, "strerror", None) or str(error)
            _log.warning("--label-snapshot %s %s: %s", self._path, what, reason)
        else:
            fault = "by a fault of kmproxy's own"
            _log.error("--label-snapshot %s %s, %s", self._path, what, fault, exc_info=error)


async def _aside(work: Callable[[], _T]) -> _T:
    """What `work` returns or raises, in a thread that the end of the process does not wait for.

    An executor's would be joined. Who no longer waits leaves it behind, until it is done.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    Thread(target=run, name="label-snapshot", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _replace(path: Path, data: bytes) -> None:
    """Put a whole new file, its owner's alone, in the place of the old one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}{_NEW}", dir=path.parent)
    new = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def _clear(path: Path, before: float) -> None:
    """Remove the new files that killed writers left, not touched since `before` (of 1970)."""
    with suppress(OSError):
        for each in path.parent.iterdir():
            if each.name.startswith(path.name + _NEW) and each.lstat().st_mtime < before:
                each.unlink()
