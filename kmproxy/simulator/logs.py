"""The log files of a simulated node: containers write CRI lines, and a kubelet rotates them.

The files lie in a real folder, as below /var/log/pods: in
`<namespace>_<pod>_<uid>/<container>/<n>.log`. Knows the CRI format, rotation, restarts, and the
pods as the kubelet lists them. Must not know requests, or anything of the proxy under test.
"""

from __future__ import annotations

import gzip
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Literal, Self

from kmproxy.simulator.objects import Object

MAX_PART = 16 << 10
"""Bytes of a line that a runtime writes as one part. A longer line has several."""

MAX_FILES = 5
"""Files that the kubelet keeps of an instance, with the one that is written."""

Kind = Literal["container", "init", "ephemeral"]
_STATUSES = {
    "container": ("containers", "containerStatuses"),
    "init": ("initContainers", "initContainerStatuses"),
    "ephemeral": ("ephemeralContainers", "ephemeralContainerStatuses"),
}


class LogContainer:
    """One container of a pod, with its instances and their files.

    `instance` counts its restarts. `running` is false after `stop`, until the next `restart`.
    """

    def __init__(
        self, folder: Path, name: str, kind: Kind, clock: Callable[[], float], max_bytes: int
    ) -> None:
        self.folder = folder
        self.name = name
        self.kind: Kind = kind
        self.instance = 0
        self.running = True
        self.max_bytes = max_bytes
        self.rotations = 0
        self.on_change: Callable[[], None] = _nothing
        """Called after the container's status has changed."""
        self._clock = clock
        self._last = 0
        self._ids = [uuid.uuid4().hex * 2]
        self._started = [clock()]
        folder.mkdir(parents=True)
        self._file = self._opened()

    def __repr__(self) -> str:
        return f"<LogContainer {self.name} instance {self.instance}, {self.rotations} rotations>"

    @property
    def path(self) -> Path:
        """The file that the runtime is told to write."""
        return self.folder / f"{self.instance}.log"

    def write(self, text: bytes | str, stream: str = "stdout", *, at: float | None = None) -> int:
        """Write one line. Returns its time, in nanoseconds since 1970.

        A line over `MAX_PART` bytes is written in parts. `at` is in seconds since 1970.
        """
        rest = text.encode() if isinstance(text, str) else text
        first = stamp = self._now(at)
        while len(rest) > MAX_PART:
            self.part(rest[:MAX_PART], stream, stamp=stamp)
            rest, stamp = rest[MAX_PART:], self._now(at)
        self.part(rest, stream, final=True, stamp=stamp)
        is_full = self.max_bytes and self._file.tell() > self.max_bytes
        if is_full and self.path.exists():  # else it waits for `reopen`
            self.rotate()
        return first

    def part(
        self,
        text: bytes,
        stream: str = "stdout",
        *,
        final: bool = False,
        stamp: int | None = None,
    ) -> int:
        """Write one part of a line: of the tag P, or F if it is `final`. Returns its time."""
        stamp = self._now(None) if stamp is None else stamp
        tag = b"F" if final else b"P"
        self.raw(b"%s %s %s %s\n" % (_stamp(stamp), stream.encode(), tag, text))
        return stamp

    def raw(self, data: bytes) -> None:
        """Write bytes as they are, for example a half of a line."""
        self._file.write(data)
        self._file.flush()

    def rotate(self, *, reopen: bool = True) -> Path:
        """Rotate the file, as the kubelet does. Returns its new path.

        Without `reopen` the runtime writes on to the renamed file until `reopen` is called.
        Older rotated files are compressed, and removed beyond `MAX_FILES`.
        """
        older = sorted(self.folder.glob(f"{self.instance}.log.*"))
        for each in older[: max(0, len(older) - (MAX_FILES - 2))]:
            each.unlink()
        for each in older[max(0, len(older) - (MAX_FILES - 2)) :]:
            if each.suffix != ".gz":
                packed = each.with_name(f"{each.name}.gz")
                temporary = each.with_name(f"{each.name}.tmp")
                temporary.write_bytes(gzip.compress(each.read_bytes(), 1))
                temporary.rename(packed)
                each.unlink()
        when = datetime.fromtimestamp(self._clock(), UTC)
        taken = {each.name.partition(".log.")[2].removesuffix(".gz") for each in older}
        while (named := when.strftime("%Y%m%d-%H%M%S")) in taken or (taken and named < max(taken)):
            when += timedelta(seconds=1)
        target = self.folder / f"{self.instance}.log.{named}"
        self.path.rename(target)
        self.rotations += 1
        if reopen:
            self.reopen()
        return target

    def reopen(self) -> None:
        """Tell the runtime to open a new file."""
        self._file.close()
        self._file = self._opened()

    def truncate(self) -> None:
        """Empty the file in place, as a person may do. The kubelet never does it."""
        self._file.truncate(0)

    def stop(self) -> None:
        """End the container. Its files stay."""
        self.running = False
        self._file.close()
        self.on_change()

    def restart(self) -> None:
        """End the container and begin its next instance. One dead instance is kept."""
        self.running = False
        self._file.close()
        for each in self.folder.glob(f"{self.instance - 1}.log*"):
            each.unlink()
        self.instance += 1
        self.running = True
        self._ids.append(uuid.uuid4().hex * 2)
        self._started.append(self._clock())
        self._file = self._opened()
        self.on_change()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def status(self) -> Object:
        """The ContainerStatus, as the kubelet has it."""
        current = {"startedAt": _seconds(self._started[-1])}
        ended = {"exitCode": 0, "reason": "Completed", "finishedAt": _seconds(self._clock())}
        this = f"containerd://{self._ids[-1]}"
        state: Object = {"running": current}
        if not self.running:
            state = {"terminated": {**current, **ended, "containerID": this}}
        before: Object = {}
        if self.instance:
            started = {"startedAt": _seconds(self._started[-2])}
            dead = {**started, **ended, "containerID": f"containerd://{self._ids[-2]}"}
            before = {"terminated": dead}
        return {
            "name": self.name,
            "state": state,
            "lastState": before,
            "ready": self.running,
            "restartCount": self.instance,
            "image": f"registry.example.com/{self.name}:1",
            "imageID": f"sha256:{self._ids[0]}",
            "containerID": this,
            "started": self.running,
        }

    def _now(self, at: float | None) -> int:
        """A time in nanoseconds: later than the one before, unless it is given."""
        if at is not None:
            return int(at * 1e9)
        self._last = max(self._last + 1, int(self._clock() * 1e9))
        return self._last

    def _opened(self) -> IO[bytes]:
        return self.path.open("ab")


class LogPod:
    """One pod and its containers by name. `deleted` pods have a deletionTimestamp."""

    def __init__(  # noqa: PLR0913 - each is a property of the pod
        self,
        root: Path,
        namespace: str,
        name: str,
        kinds: Mapping[str, Kind],
        *,
        node: str,
        static: bool,
        labels: Mapping[str, str],
        clock: Callable[[], float],
        max_bytes: int,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uuid.uuid4().hex if static else str(uuid.uuid4())
        self.node = node
        self.static = static
        self.labels = dict(labels)
        self.deleted = False
        self.folder = root / "pods" / f"{namespace}_{name}_{self.uid}"
        self._clock = clock
        self.containers = {
            each: LogContainer(self.folder / each, each, kind, clock, max_bytes)
            for each, kind in kinds.items()
        }

    def __repr__(self) -> str:
        return f"<LogPod {self.namespace}/{self.name} {self.uid}>"

    def document(self) -> Object:
        """The Pod, as the kubelet lists it: without `kind` and `apiVersion`."""
        source = "file" if self.static else "api"
        metadata: Object = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "labels": self.labels,
            "annotations": {"kubernetes.io/config.source": source},
        }
        if self.static:
            metadata["annotations"]["kubernetes.io/config.hash"] = self.uid
        if self.deleted:
            metadata["deletionTimestamp"] = _seconds(self._clock())
            metadata["deletionGracePeriodSeconds"] = 30
        spec: Object = {"nodeName": self.node, "restartPolicy": "Always"}
        status: Object = {"phase": "Running"}
        for kind, (listed, statuses) in _STATUSES.items():
            found = [each for each in self.containers.values() if each.kind == kind]
            if found or kind == "container":
                spec[listed] = [{"name": each.name, "image": f"{each.name}:1"} for each in found]
                status[statuses] = [each.status() for each in found]
        return {"metadata": metadata, "spec": spec, "status": status}


class SimLogs:
    """The log folder of one node, `root` (its /var/log), and the pods that write there.

    `max_bytes` is the size from which a file is rotated, 0 for never.
    """

    def __init__(
        self,
        root: Path,
        node: str = "node-a",
        *,
        max_bytes: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = root
        self.node = node
        self.pods: list[LogPod] = []
        self.on_change: Callable[[LogPod], None] = _nothing
        """Called after a pod was started or removed, and after its status has changed."""
        self._max_bytes = max_bytes
        self._clock = clock
        (root / "pods").mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<SimLogs {self.root}, {len(self.pods)} pods>"

    def start(
        self,
        namespace: str,
        name: str,
        containers: Sequence[str] = ("app",),
        *,
        init: Sequence[str] = (),
        ephemeral: Sequence[str] = (),
        static: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> LogPod:
        """Start a pod whose containers all run."""
        kinds: dict[str, Kind] = dict.fromkeys(init, "init")
        kinds |= dict.fromkeys(containers, "container")
        kinds |= dict.fromkeys(ephemeral, "ephemeral")
        pod = LogPod(
            self.root, namespace, name, kinds, node=self.node, static=static,
            labels=labels or {}, clock=self._clock, max_bytes=self._max_bytes,
        )  # fmt: skip
        self.pods.append(pod)
        for each in pod.containers.values():
            each.on_change = lambda: self.on_change(pod)
        self.on_change(pod)
        return pod

    def delete(self, pod: LogPod) -> None:
        """Begin to delete a pod: it gets a deletionTimestamp, and its containers write on."""
        pod.deleted = True
        self.on_change(pod)

    def remove(self, pod: LogPod) -> None:
        """End the containers of a pod, take it off the list, and remove its files."""
        for each in pod.containers.values():
            each.running = False
            each.close()
        self.pods.remove(pod)
        self.on_change(pod)
        shutil.rmtree(pod.folder)

    def documents(self) -> list[Object]:
        """The pods, as the kubelet lists them."""
        return [pod.document() for pod in self.pods]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files."""
        for pod in self.pods:
            for each in pod.containers.values():
                each.close()


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


def _stamp(nanoseconds: int) -> bytes:
    """A time as a runtime writes it: RFC 3339 with nanoseconds, without zeros at the end."""
    seconds, rest = divmod(nanoseconds, 10**9)
    when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{when}.{rest:09d}".rstrip("0").rstrip(".").encode() + b"Z"


def _seconds(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
