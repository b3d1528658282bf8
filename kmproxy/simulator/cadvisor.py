"""The texts of a simulated kubelet's metrics endpoints.

Knows the pods of a node, its control groups, and how its values change. Takes the metric families
from tables. Does no I/O and reads no clock: the time, in seconds since the epoch, is passed in.
Must not know HTTP, the API server, or anything of the proxy under test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from zlib import crc32

from kmproxy.simulator.families import LABELS, SHAPES, TABLES

HOUSEKEEPING = 10.0
"""Seconds between two readings of one control group. Each control group has its own phase."""
ENDPOINTS = tuple(TABLES)
_LE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
_PAUSE = "registry.k8s.io/pause:3.10"
_APPS = {
    "kube-system": ("coredns", "kube-proxy", "konnectivity-agent"),
    "payments": ("ledger", "checkout", "invoices"),
}
_DEFAULT_APPS = ("web", "api", "worker")


@dataclass(frozen=True, slots=True)
class Container:
    """One container. `cpu_quota` is in microseconds of CPU per 100 ms, 0 for no limit."""

    name: str
    image: str
    id: str
    cpu_quota: int
    memory_limit: int
    weight: float


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a node.

    `claim` is the name of its volume claim, or empty. `started` is in seconds since the epoch.
    """

    namespace: str
    name: str
    app: str
    uid: str
    sandbox: str
    ip: str
    qos: str
    claim: str
    started: float
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node and its pods. It runs since `started` (seconds since the epoch)."""

    name: str
    started: float
    pods: tuple[Pod, ...]


def simulate_node(
    name: str, namespaces: Iterable[str], *, pods_per_namespace: int = 3, started: float = 0.0
) -> Node:
    """Make up the pods of a node. The same arguments give the same node."""
    return Node(
        name,
        started,
        tuple(
            _simulate_pod(name, namespace, index, started)
            for namespace in namespaces
            for index in range(pods_per_namespace)
        ),
    )


def _simulate_pod(node: str, namespace: str, index: int, started: float) -> Pod:
    apps = _APPS.get(namespace, _DEFAULT_APPS)
    app = apps[index % len(apps)]
    own, owner = _digest(node, namespace, index), _digest(namespace, app)
    qos = ("Burstable", "Guaranteed", "BestEffort")[index % 3]
    name = f"{app}-{owner[:10]}-{own[:5]}"
    containers = []
    for role in (app, "sidecar") if qos == "Burstable" else (app,):
        seed = _digest(own, role)
        limited = qos == "Guaranteed" or (qos == "Burstable" and role == app)
        containers.append(
            Container(
                name=role,
                image=f"registry.example.com/{role}:1.{int(owner[0], 16)}",
                id=seed,
                cpu_quota=50000 if limited else 0,
                memory_limit=1 << 27 if limited else 0,
                weight=0.5 + int(seed[:4], 16) / 0xFFFF,
            )
        )
    return Pod(
        namespace=namespace,
        name=name,
        app=app,
        uid=f"{own[:8]}-{own[8:12]}-4{own[13:16]}-8{own[17:20]}-{own[20:32]}",
        sandbox=_digest(own, "sandbox"),
        ip=f"10.244.{int(own[:2], 16)}.{int(own[2:4], 16) % 254 + 1}",
        qos=qos,
        claim=f"data-{app}-{index}" if qos == "Guaranteed" else "",
        started=started + int(own[:4], 16) % 60,
        containers=tuple(containers),
    )


@dataclass(frozen=True, slots=True)
class _Cgroup:
    weight: float
    started: float
    labels: Mapping[str, str]
    facts: Mapping[str, int]

    @property
    def phase(self) -> float:
        return crc32(self.labels["id"].encode()) % 10000 / 1000


_Value = Callable[[float], float]
_Row = tuple[str, _Value, "float | None"]  # the series, its value, its phase if it has a timestamp
_Shapes = Mapping[str, Sequence[tuple[dict[str, str], _Cgroup]]]


class NodeMetrics:
    """The metrics text of one node. The same node gives the same bytes at the same time.

    Counters never decrease while `now` grows. cAdvisor samples are up to `HOUSEKEEPING` seconds
    old, as their timestamps show. The rows are made at the first rendering, and kept.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._shapes: _Shapes = {}
        self._families: dict[str, list[tuple[str, list[_Row]]]] = {}

    def __repr__(self) -> str:
        return f"<NodeMetrics {self.node.name}, {len(self.node.pods)} pods>"

    def text(self, endpoint: str, now: float) -> bytes:
        """Render an endpoint of `ENDPOINTS` at the time `now`. Raises KeyError for any other."""
        table = TABLES[endpoint]
        if table not in self._families:
            self._shapes = self._shapes or _shapes(self.node)
            self._families[table] = [self._family(line) for line in table.splitlines()]
        out = []
        for head, rows in self._families[table]:
            out.append(head)
            for series, value, phase in rows:
                if phase is None:
                    out.append(f"{series} {format_float(value(now))}\n")
                else:
                    at = now - (now - phase) % HOUSEKEEPING
                    out.append(f"{series} {format_float(value(at))} {int(at * 1000)}\n")
        return "".join(out).encode()

    def _family(self, line: str) -> tuple[str, list[_Row]]:
        name, shape, spec, text = line.split(" ", 3)
        name = f"container_{name[1:]}" if name.startswith(".") else name
        plain = ":" not in spec and "%" not in spec
        kind = "histogram" if ":" in spec else "summary"
        kind = {"+": "counter"}.get(spec[0], "gauge") if plain else kind
        rows: dict[str, _Row] = {}
        for labels, cgroup in self._shapes[shape.removeprefix("!")]:
            pairs = ",".join(f'{key}="{_escape(labels[key])}"' for key in sorted(labels))
            for series, value in _series(name, pairs, spec, cgroup):
                rows[series] = (series, value, None if shape.startswith("!") else cgroup.phase)
        ordered = sorted(rows.values(), key=_by_labels) if plain else list(rows.values())
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n", ordered


def _by_labels(row: _Row) -> str:
    return row[0].replace('"', "\0")  # so a value sorts before a longer value that begins with it


def _shapes(node: Node) -> _Shapes:
    """Return the rows of each shape: the labels of a row, and its control group."""
    groups = _cgroups(node)
    shapes: dict[str, list[tuple[dict[str, str], _Cgroup]]] = {}
    for line in SHAPES.splitlines():
        name, chosen, kept, *added = line.split()
        keys = {"*": LABELS, "-": ()}.get(kept, kept.split(","))
        extra = {key: values.split("|") for key, values in (pair.split("=") for pair in added)}
        more = [dict(zip(extra, values, strict=True)) for values in product(*extra.values())]
        shapes.setdefault(name, []).extend(
            ({key: each.labels[key] for key in keys} | one, each)
            for group in chosen.split("+")
            for each in groups[group]
            for one in more
        )
    return shapes


def _cgroups(node: Node) -> dict[str, list[_Cgroup]]:
    """Return the control groups by their type. A parent has the weight of its children."""
    blank = dict.fromkeys(LABELS, "") | {"node": node.name}
    weights = {"/kubepods": 0.0, "/kubepods/besteffort": 0.0, "/kubepods/burstable": 0.0}
    pods, sandboxes, containers = [], [], []
    for pod in node.pods:
        parent = "/kubepods" if pod.qos == "Guaranteed" else f"/kubepods/{pod.qos.lower()}"
        path = f"{parent}/pod{pod.uid}"
        weight = 0.05 + sum(each.weight for each in pod.containers)
        for slice_ in {parent, "/kubepods"}:
            weights[slice_] += weight
        labels = blank | {"id": path, "namespace": pod.namespace, "pod": pod.name}
        labels |= {"uid": pod.uid, "pod_uid": pod.uid, "persistentvolumeclaim": pod.claim}
        limits = _facts(*(pod.containers if pod.qos == "Guaranteed" else ()))
        pods.append(_Cgroup(weight, pod.started, labels, limits))
        pause = {"id": f"{path}/{pod.sandbox}", "image": _PAUSE, "name": pod.sandbox}
        sandboxes.append(_Cgroup(0.05, pod.started, labels | pause, _facts()))
        for each in pod.containers:
            own = {"container": each.name, "id": f"{path}/{each.id}"}
            own |= {"image": each.image, "name": each.id}
            containers.append(_Cgroup(each.weight, pod.started, labels | own, _facts(each)))
    weights |= {"/system.slice": 1.0, "/system.slice/kubelet.service": 0.6}
    total = {"memory_limit": 25276502016, "cpu_shares": 1024}
    total |= {"pods": len(pods), "containers": len(containers)}
    root = _Cgroup(weights["/kubepods"] + 2, node.started, blank | {"id": "/"}, total)
    inner = [
        _Cgroup(weight, node.started, blank | {"id": path}, _facts())
        for path, weight in weights.items()
    ] + [*pods, *sandboxes, *containers]
    return {
        "root": [root],
        "host": [replace(root, weight=1.0)],
        "inner": inner,
        "pods": pods,
        "sandboxes": sandboxes,
        "containers": containers,
        "limited": [each for each in inner if "cpu_quota" in each.facts],
        "claims": [each for each in pods if each.labels["persistentvolumeclaim"]],
    }


def _facts(*containers: Container) -> dict[str, int]:
    quota = sum(each.cpu_quota for each in containers)
    memory = sum(each.memory_limit for each in containers)
    facts = {"cpu_shares": max(2, quota * 1024 // 100000), "memory_limit": memory}
    return facts | ({"cpu_quota": quota} if quota else {})


def _series(name: str, pairs: str, spec: str, cgroup: _Cgroup) -> Iterator[tuple[str, _Value]]:
    """The series of one row, each with a function that maps the time to its value."""
    seed = crc32(f"{name}{pairs}".encode()) / 0xFFFFFFFF
    labels = f"{{{pairs}}}" if pairs else ""
    comma = f"{pairs}," if pairs else ""
    if ":" not in spec and "%" not in spec:
        yield f"{name}{labels}", _value(spec, cgroup, seed)
        return
    rate, mean = map(float, spec[1:].replace("%", ":").split(":"))
    count = _counter(rate * (0.5 + seed), cgroup.started)
    if ":" in spec:
        for le in _LE:
            yield f'{name}_bucket{{{comma}le="{format_float(le)}"}}', _share(count, le / mean)
    else:
        for quantile in (0.0, 0.25, 0.5, 0.75, 1.0):
            value = _constant(mean * (0.2 + 2 * quantile))
            yield f'{name}{{{comma}quantile="{format_float(quantile)}"}}', value
    yield f"{name}_sum{labels}", lambda at: round(count(at) * mean, 9)
    yield f"{name}_count{labels}", count


def _value(spec: str, cgroup: _Cgroup, seed: float) -> _Value:
    kind, text, unit = spec[0], spec[1:].rstrip("ps"), spec[-1]
    if kind == "@":
        facts = {"start": int(cgroup.started), "born": cgroup.started + seed, **cgroup.facts}
        return float if text == "seen" else _constant(facts[spec[1:]])
    if kind == "=":
        return _constant(float(text))
    if kind == "+":
        return _counter(
            float(text) * cgroup.weight * (0.9 + seed / 5), cgroup.started, seconds=unit == "s"
        )
    base, page = float(text) * cgroup.weight, 4096 if unit == "p" else 1
    period = 120 + 480 * seed
    return lambda at: int(base * (0.95 + 0.05 * math.sin(at / period + 6 * seed))) // page * page


def _counter(rate: float, started: float, *, seconds: bool = False) -> _Value:
    if seconds:
        return lambda at: round(rate * max(0.0, at - started), 9)
    return lambda at: int(rate * max(0.0, at - started))


def _share(count: _Value, times_mean: float) -> _Value:
    share = 1 - math.exp(-times_mean)
    return lambda at: int(count(at) * share)


def _constant(value: float) -> _Value:
    return lambda _: value


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def format_float(value: float) -> str:
    """Write a value as Go's `strconv.FormatFloat(value, 'g', -1, 64)` does."""
    text = repr(float(value))
    if text.lstrip("-") in ("inf", "nan"):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(text, "NaN")
    whole, _, fraction = text.partition(".")
    if "e" in text or abs(value) < 1e6:
        return whole if fraction == "0" else text
    sign, whole = ("-", whole[1:]) if value < 0 else ("", whole)
    digits = (whole + fraction).rstrip("0")
    return f"{sign}{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e+{len(whole) - 1:02d}"
