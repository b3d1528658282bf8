"""The text of a simulated kubelet's metrics endpoints.

Knows which families a kubelet exposes, with which labels, on which control groups, and how its
numbers move. Does no I/O and reads no clock: the time, in seconds since the epoch, is passed in.
Must not know HTTP, the API server, or anything of the proxy under test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from zlib import crc32

HOUSEKEEPING = 10.0
"""Seconds between two readings of one control group; each has a phase of its own."""

# A family a line: its name (`.` is `container_`), its shape, its value, its help.
# Shape: of `_SHAPES`; `!` is for no timestamp.
# Value: `+R` a counter growing by R a second (`s`: in nanosecond steps), `+R:M` a histogram and
# `+R%M` a summary of R observations a second around M seconds, `~B` a gauge around B (`p`: whole
# pages), `=V` a gauge that is always V, `@F` a fact of the control group.
_CADVISOR = """\
cadvisor_version_info !version =1 A metric with a constant '1' value labeled by kernel version, \
OS version, docker version, cadvisor version & cadvisor revision.
.blkio_device_usage_total blkio +2048 Blkio Device bytes usage
.cpu_cfs_burst_periods_total quota +0 Number of periods when burst occurs.
.cpu_cfs_burst_seconds_total quota +0 Total time duration the container has been bursted.
.cpu_cfs_periods_total quota +2 Number of elapsed enforcement period intervals.
.cpu_cfs_throttled_periods_total quota +0.1 Number of throttled period intervals.
.cpu_cfs_throttled_seconds_total quota +0.004s Total time duration the container has been \
throttled.
.cpu_load_average_10s all =0 Value of container cpu load average over the last 10 seconds.
.cpu_load_d_average_10s all =0 Value of container cpu load.d average over the last 10 seconds.
.cpu_system_seconds_total all +0.007s Cumulative system cpu time consumed in seconds.
.cpu_usage_seconds_total cpu +0.02s Cumulative cpu time consumed in seconds.
.cpu_user_seconds_total all +0.013s Cumulative user cpu time consumed in seconds.
.file_descriptors all ~12 Number of open file descriptors for the container.
.fs_inodes_free fs ~3085509 Number of available Inodes
.fs_inodes_total fs =3.08551e+06 Number of Inodes
.fs_io_current fs =0 Number of I/Os currently in progress
.fs_io_time_seconds_total fs +0 Cumulative count of seconds spent doing I/Os
.fs_io_time_weighted_seconds_total fs +0 Cumulative weighted I/O time in seconds
.fs_limit_bytes fs =2.5276502016e+10 Number of bytes that can be consumed by the container on \
this filesystem.
.fs_read_seconds_total fs +0 Cumulative count of seconds spent reading
.fs_reads_bytes_total disk +512 Cumulative count of bytes read
.fs_reads_merged_total fs +0 Cumulative count of reads merged
.fs_reads_total fsdisk +0.2 Cumulative count of reads completed
.fs_sector_reads_total fs +0 Cumulative count of sector reads completed
.fs_sector_writes_total fs +0 Cumulative count of sector writes completed
.fs_usage_bytes fs ~3e9p Number of bytes that are consumed by the container on this filesystem.
.fs_write_seconds_total fs +0 Cumulative count of seconds spent writing
.fs_writes_bytes_total disk +1024 Cumulative count of bytes written
.fs_writes_merged_total fs +0 Cumulative count of writes merged
.fs_writes_total fsdisk +0.4 Cumulative count of writes completed
.health_state all =-1 The result of the container's health check
.last_seen all @seen Last time a container was seen by the exporter
.memory_cache all ~4e6p Number of bytes of page cache memory.
.memory_failcnt all +0 Number of memory usage hits limits
.memory_failures_total fail +0.3 Cumulative count of memory allocation failures.
.memory_kernel_usage all ~2e5p Size of kernel memory allocated in bytes.
.memory_mapped_file all ~5e5p Size of memory mapped files in bytes.
.memory_max_usage_bytes all =6.7108864e+07 Maximum memory usage recorded in bytes
.memory_rss all ~3e7p Size of RSS in bytes.
.memory_swap all =0 Container swap usage in bytes.
.memory_total_active_file_bytes all ~1e6p Current total active file in bytes.
.memory_total_inactive_file_bytes all ~2e6p Current total inactive file in bytes.
.memory_usage_bytes all ~3.6e7p Current memory usage in bytes, including all memory regardless of \
when it was accessed
.memory_working_set_bytes all ~3.2e7p Current working set in bytes.
.network_receive_bytes_total net +900 Cumulative count of bytes received
.network_receive_errors_total net +0 Cumulative count of errors encountered while receiving
.network_receive_packets_dropped_total net +0 Cumulative count of packets dropped while receiving
.network_receive_packets_total net +3 Cumulative count of packets received
.network_transmit_bytes_total net +700 Cumulative count of bytes transmitted
.network_transmit_errors_total net +0 Cumulative count of errors encountered while transmitting
.network_transmit_packets_dropped_total net +0 Cumulative count of packets dropped while \
transmitting
.network_transmit_packets_total net +2.5 Cumulative count of packets transmitted
.oom_events_total all +0 Count of out of memory events observed for the container
.pressure_cpu_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to CPU congestion.
.pressure_cpu_waiting_seconds_total all +0.0007s Total time duration tasks in the container have \
waited due to CPU congestion.
.pressure_io_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to IO congestion.
.pressure_io_waiting_seconds_total all +0.0007s Total time duration tasks in the container have \
waited due to IO congestion.
.pressure_memory_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to memory congestion.
.pressure_memory_waiting_seconds_total all +0.0007s Total time duration tasks in the container \
have waited due to memory congestion.
.processes all ~2 Number of processes running inside the container.
.scrape_error !bare =0 1 if there was an error while getting container metrics, 0 otherwise
.sockets all ~4 Number of open sockets for the container.
.spec_cpu_period !all =100000 CPU period of the container.
.spec_cpu_quota !quota @cpu_quota CPU quota of the container.
.spec_cpu_shares !all @cpu_shares CPU share of the container.
.spec_memory_limit_bytes !all @memory_limit Memory limit for the container.
.spec_memory_reservation_limit_bytes !all =0 Memory reservation limit for the container.
.spec_memory_swap_limit_bytes !all @memory_limit Memory swap limit for the container.
.start_time_seconds !all @start Start time of the container since unix epoch in seconds.
.tasks_state state =0 Number of tasks in given state
.threads all ~9 Number of threads running inside the container
.threads_max all =0 Maximum number of threads allowed inside the container, infinity if value is \
zero
.ulimits_soft ulimit =1.048576e+06 Soft ulimit values for the container root process. Unlimited \
if -1, except priority and nice
machine_cpu_books !machine =0 Number of CPU books.
machine_cpu_cores !machine =4 Number of logical CPU cores.
machine_cpu_drawers !machine =0 Number of CPU drawers.
machine_cpu_physical_cores !machine =4 Number of physical CPU cores.
machine_cpu_sockets !machine =1 Number of CPU sockets.
machine_memory_bytes !machine =2.5276502016e+10 Amount of memory installed on the machine.
machine_nvm_avg_power_budget_watts !machine =0 NVM power budget.
machine_nvm_capacity !nvm =0 NVM capacity value labeled by NVM mode (memory mode or app direct \
mode).
machine_scrape_error !bare =0 1 if there was an error while getting machine metrics, 0 otherwise.
machine_swap_bytes !machine =0 Amount of swap memory available on the machine.
"""
_METRICS = """\
go_gc_duration_seconds !bare +0.01%0.0003 A summary of the wall-time pause (stop-the-world) \
duration in garbage collection cycles.
go_goroutines !bare ~180 Number of goroutines that currently exist.
go_info !go =1 Information about the Go environment.
go_threads !bare ~14 Number of OS threads created.
kubelet_container_log_filesystem_used_bytes !log ~40960p [ALPHA] Bytes used by the container's \
logs on the filesystem.
kubelet_node_name !nodename =1 [ALPHA] The node's name. The count is always 1.
kubelet_pleg_last_seen_seconds !bare @seen [ALPHA] Timestamp in seconds when PLEG was last seen \
active.
kubelet_pleg_relist_duration_seconds !bare +1:0.004 [ALPHA] Duration in seconds for relisting \
pods in PLEG.
kubelet_running_containers !running @containers [ALPHA] Number of containers currently running
kubelet_running_pods !bare @pods [ALPHA] Number of pods that have a running pod sandbox
kubelet_runtime_operations_duration_seconds !runtime +0.5:0.006 [ALPHA] Duration in seconds of \
runtime operations. Broken down by operation type.
kubelet_volume_stats_available_bytes !volume ~7.4e9p [ALPHA] Number of available bytes in the \
volume
kubelet_volume_stats_capacity_bytes !volume =1.0737418240e+10 [ALPHA] Capacity in bytes of the \
volume
kubelet_volume_stats_inodes !volume =655360 [ALPHA] Maximum number of inodes in the volume
kubelet_volume_stats_inodes_free !volume ~640000 [ALPHA] Number of free inodes in the volume
kubelet_volume_stats_inodes_used !volume ~15360 [ALPHA] Number of used inodes in the volume
kubelet_volume_stats_used_bytes !volume ~2.6e9p [ALPHA] Number of used bytes in the volume
process_cpu_seconds_total !bare +0.01s Total user and system CPU time spent in seconds.
process_open_fds !bare ~28 Number of open file descriptors.
process_resident_memory_bytes !bare ~9.9e7p Resident memory size in bytes.
process_start_time_seconds !bare @start Start time of the process since unix epoch in seconds.
rest_client_exec_plugin_ttl_seconds !bare =+Inf [ALPHA] Gauge of the shortest TTL (time-to-live) \
of the client certificate(s) managed by the auth exec plugin. The value is in seconds until \
certificate expiry (negative if already expired). If auth exec plugins are unused or manage no \
TLS certificates, the value will be +INF.
rest_client_requests_total !rest +0.2 [ALPHA] Number of HTTP requests, partitioned by status \
code, method, and host.
workqueue_depth !queue =0 [BETA] Current depth of workqueue
"""
_RESOURCE = """\
.cpu_usage_seconds_total res +0.02s [STABLE] Cumulative cpu time consumed by the container in \
core-seconds
.memory_working_set_bytes res ~3.2e7p [STABLE] Current working set of the container in bytes
.start_time_seconds !res @born [STABLE] Start time of the container since unix epoch in seconds
.swap_limit_bytes res =0 [ALPHA] Current amount of the container swap limit in bytes. Reported \
only on non-windows systems
.swap_usage_bytes res =0 [ALPHA] Current amount of the container swap usage in bytes. Reported \
only on non-windows systems
node_cpu_usage_seconds_total node +0.02s [STABLE] Cumulative cpu time consumed by the node in \
core-seconds
node_memory_working_set_bytes node ~3.2e7p [STABLE] Current working set of the node in bytes
node_swap_usage_bytes node =0 [ALPHA] Current swap usage of the node in bytes. Reported only on \
non-windows systems
pod_cpu_usage_seconds_total respod +0.02s [STABLE] Cumulative cpu time consumed by the pod in \
core-seconds
pod_memory_working_set_bytes respod ~3.2e7p [STABLE] Current working set of the pod in bytes
pod_swap_usage_bytes respod =0 [ALPHA] Current amount of the pod swap usage in bytes. Reported \
only on non-windows systems
resource_scrape_error !bare =0 [STABLE] 1 if there was an error while getting container metrics, \
0 otherwise
"""
_PROBES = """\
prober_probe_duration_seconds !probe +0.1:0.002 [ALPHA] Duration in seconds for a probe response.
prober_probe_total !probed +0.1 [BETA] Cumulative number of a liveness, readiness or startup \
probe for a container by result.
process_start_time_seconds !bare @start [ALPHA] Start time of the process since unix epoch in \
seconds.
"""

# A shape a line: its name, the control groups that have a row, the labels kept of those
# (`*`: the six of `_BASE`, `-`: none), the labels added (a row for each of their values).
_SHAPES = """\
all root+inner *
cpu root+inner * cpu=total
quota limited *
fs host * device=/dev/vda|/run/lock|/sys/fs/cgroup|overlay_0-100|overlay_0-101
fsdisk host * device=/dev/vda|/run/lock|/sys/fs/cgroup|overlay_0-100|overlay_0-101
fsdisk inner * device=/dev/vda
disk root+inner * device=/dev/vda
blkio root+containers * device=/dev/vda major=254 minor=0 operation=Read|Write
fail root+inner * failure_type=pgfault|pgmajfault scope=container|hierarchy
net root+sandboxes * interface=eth0|tunl0
state root+inner * state=iowaiting|running|sleeping|stopped|uninterruptible
ulimit root+sandboxes+containers * ulimit=max_open_files
version host - cadvisorRevision= cadvisorVersion= dockerVersion= kernelVersion=6.12 osVersion=Linux
machine host - boot_id=1de422c2 machine_id=3d1219c7 system_uuid=3d1219c7
nvm host - boot_id=1de422c2 machine_id=3d1219c7 mode=app_direct_mode|memory_mode \
system_uuid=3d1219c7
bare host -
node root -
nodename host node
go host - version=go1.26.3
http host - long_running=false method=GET path=metrics|metrics/cadvisor server_type=readwrite
running host - container_state=running
runtime host - operation_type=container_status|exec_sync|image_status
rest host - code=200 host=127.0.0.1:6443 method=GET|PATCH
queue host - name=DynamicServingCertificateController|kubelet_log_rotate_manager
volume claims namespace,persistentvolumeclaim
log containers container,namespace,pod,uid
res containers container,namespace,pod
respod pods namespace,pod
probe containers container,namespace,pod probe_type=Liveness|Readiness
probed containers container,namespace,pod,pod_uid probe_type=Liveness|Readiness result=successful
"""

_TABLES = {
    "/metrics/cadvisor": _CADVISOR,
    "/metrics": _METRICS,
    "/metrics/resource": _RESOURCE,
    "/metrics/probes": _PROBES,
}
ENDPOINTS = tuple(_TABLES)
_BASE = ("container", "id", "image", "name", "namespace", "pod")
_LE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
_PAUSE = "registry.k8s.io/pause:3.10"
_APPS = {
    "kube-system": ("coredns", "kube-proxy", "konnectivity-agent"),
    "payments": ("ledger", "checkout", "invoices"),
}
_DEFAULT_APPS = ("web", "api", "worker")


@dataclass(frozen=True, slots=True)
class Container:
    """One container; `cpu_quota` is in microseconds of CPU per 100 ms, 0 for no limit."""

    name: str
    image: str
    id: str
    cpu_quota: int
    memory_limit: int
    weight: float


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a node. `claim` is its volume claim's name, or empty; `started` is epoch s."""

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
    """A node and what runs on it since `started` (seconds since the epoch)."""

    name: str
    started: float
    pods: tuple[Pod, ...]


def simulate_node(
    name: str, namespaces: Iterable[str], *, pods_per_namespace: int = 3, started: float = 0.0
) -> Node:
    """Invent the pods of a node: the same arguments give the same node."""
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
    """The metrics text of one node. The same node at the same time is the same bytes.

    Counters never fall while `now` grows; cAdvisor samples are up to `HOUSEKEEPING` seconds old
    and say so in their timestamps. Rows are laid out at the first rendering, and kept.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._shapes: _Shapes = {}
        self._families: dict[str, list[tuple[str, list[_Row]]]] = {}

    def __repr__(self) -> str:
        return f"<NodeMetrics {self.node.name}, {len(self.node.pods)} pods>"

    def text(self, endpoint: str, now: float) -> bytes:
        """Render an endpoint of `ENDPOINTS`, as it is at `now`; `KeyError` for any other."""
        table = _TABLES[endpoint]
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
    return row[0].replace('"', "\0")  # so that a value goes before a longer one


def _shapes(node: Node) -> _Shapes:
    """Return the rows of each shape: the labels of a row and the control group it is of."""
    groups = _cgroups(node)
    shapes: dict[str, list[tuple[dict[str, str], _Cgroup]]] = {}
    for line in _SHAPES.splitlines():
        name, chosen, kept, *added = line.split()
        keys = {"*": _BASE, "-": ()}.get(kept, kept.split(","))
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
    """Return the control groups by what they are; a parent weighs what its children do."""
    blank = dict.fromkeys(_BASE, "") | {"node": node.name}
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
    """The series of one row, each with the function from time to value."""
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
