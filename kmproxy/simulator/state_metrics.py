"""The exposition of kube-state-metrics 2.x for a made-up state of a cluster.

Knows families of kube-state-metrics: their names, types, help texts and the order of their labels.
Must not know HTTP, or anything of the proxy under test. The same state always makes the same text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4"

CREATED = 1767225600
"""The time at which everything was created, in seconds since 1970."""

_PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_NODE = {
    "kernel_version": "6.12.0",
    "os_image": "Simulated Linux",
    "container_runtime_version": "containerd://2.1.4",
    "kubelet_version": "v1.35.0",
    "kubeproxy_version": "deprecated",
    "provider_id": "",
    "pod_cidr": "10.244.0.0/24",
    "system_uuid": "3d1219c7",
}


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod with one container. `waiting` and `terminated` are reasons, or empty."""

    namespace: str
    name: str
    node: str
    replica_set: str
    container: str = "app"
    ready: bool = True
    restarts: int = 0
    waiting: str = ""
    terminated: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of each of its samples."""
        digest = hashlib.blake2b(f"{self.namespace}/{self.name}".encode(), digest_size=16)
        uid = re.sub("(.{8})(.{4})(.{4})(.{4})", r"\1-\2-\3-\4-", digest.hexdigest())
        return {"namespace": self.namespace, "pod": self.name, "uid": uid}


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """A Deployment. All its replicas are updated."""

    namespace: str
    name: str
    replicas: int
    available: int

    @property
    def labels(self) -> dict[str, str]:
        """The labels of each of its samples."""
        return {"namespace": self.namespace, "deployment": self.name}


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job that has ended."""

    namespace: str
    name: str
    failed: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """The labels of each of its samples."""
        return {"namespace": self.namespace, "job_name": self.name}


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The objects that are counted. `namespaces` maps names to labels."""

    namespaces: Mapping[str, Mapping[str, str]]
    nodes: Sequence[str] = ("node-a",)
    pods: Sequence[PodState] = field(default_factory=list)
    deployments: Sequence[DeploymentState] = field(default_factory=list)
    jobs: Sequence[JobState] = field(default_factory=list)


def usual_state(
    namespaces: Mapping[str, Mapping[str, str]], nodes: Sequence[str] = ("node-a",), pods: int = 2
) -> ClusterState:
    """A state with one Deployment of so many pods and one Job in each namespace.

    In each third namespace the first pod was killed for its memory and is not ready.
    """
    made = []
    for space, namespace in enumerate(sorted(namespaces)):
        for number in range(pods):
            ill = space % 3 == 0 and number == 0
            made.append(
                PodState(
                    namespace,
                    f"api-6c5d7f9b84-{number:05x}",
                    nodes[(space + number) % len(nodes)],
                    "api-6c5d7f9b84",
                    ready=not ill,
                    restarts=7 if ill else 0,
                    waiting="CrashLoopBackOff" if ill else "",
                    terminated="OOMKilled" if ill else "",
                )
            )
    ill_spaces = set(sorted(namespaces)[::3])
    deployments = [
        DeploymentState(each, "api", pods, pods - (each in ill_spaces))
        for each in sorted(namespaces)
    ]
    jobs = [
        JobState(each, "backup-29453", failed=each in ill_spaces) for each in sorted(namespaces)
    ]
    return ClusterState(namespaces, nodes, made, deployments, jobs)


_Row = tuple[Mapping[str, str], float]


def _namespaces(state: ClusterState) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield from sorted(state.namespaces.items())


def _labels_of_namespaces(state: ClusterState) -> Iterator[_Row]:
    for name, labels in _namespaces(state):
        made = {"label_" + re.sub("[^a-zA-Z0-9_]", "_", key): labels[key] for key in sorted(labels)}
        yield {"namespace": name} | made, 1


def _phases_of_namespaces(state: ClusterState) -> Iterator[_Row]:
    for name, _ in _namespaces(state):
        for phase in ("Active", "Terminating"):
            yield {"namespace": name, "phase": phase}, float(phase == "Active")


def _conditions_of_nodes(state: ClusterState) -> Iterator[_Row]:
    for node in state.nodes:
        for condition in _CONDITIONS:
            is_so = "true" if condition == "Ready" else "false"
            for status in ("true", "false", "unknown"):
                labels = {"node": node, "condition": condition, "status": status}
                yield labels, float(status == is_so)


def _allocatable(state: ClusterState) -> Iterator[_Row]:
    for node in state.nodes:
        for resource, unit, value in (
            ("cpu", "core", 4.0),
            ("memory", "byte", 16777216000.0),
            ("pods", "integer", 110.0),
        ):
            yield {"node": node, "resource": resource, "unit": unit}, value


def _pod_info(state: ClusterState) -> Iterator[_Row]:
    for pod in state.pods:
        more = {
            "host_ip": "10.0.0.1",
            "pod_ip": "10.244.0.7",
            "node": pod.node,
            "created_by_kind": "ReplicaSet",
            "created_by_name": pod.replica_set,
            "priority_class": "",
            "host_network": "false",
        }
        yield pod.labels | more, 1


def _pod_owner(state: ClusterState) -> Iterator[_Row]:
    for pod in state.pods:
        owner = {"owner_kind": "ReplicaSet", "owner_name": pod.replica_set}
        yield pod.labels | owner | {"owner_is_controller": "true"}, 1


def _pod_phases(state: ClusterState) -> Iterator[_Row]:
    for pod in state.pods:
        for phase in _PHASES:
            yield pod.labels | {"phase": phase}, float(phase == "Running")


def _pod_ready(state: ClusterState) -> Iterator[_Row]:
    for pod in state.pods:
        for condition in ("true", "false", "unknown"):
            is_so = condition == ("true" if pod.ready else "false")
            yield pod.labels | {"condition": condition}, float(is_so)


def _containers(
    value: Callable[[PodState], float | None], **more: Callable[[PodState], str]
) -> Callable[[ClusterState], Iterator[_Row]]:
    """Rows of containers, for those with a value."""

    def rows(state: ClusterState) -> Iterator[_Row]:
        for pod in state.pods:
            if (number := value(pod)) is not None:
                others = {name: make(pod) for name, make in more.items()}
                yield pod.labels | {"container": pod.container} | others, number

    return rows


def _deployments(
    value: Callable[[DeploymentState], float],
) -> Callable[[ClusterState], Iterator[_Row]]:
    return lambda state: ((each.labels, value(each)) for each in state.deployments)


def _failed_jobs(state: ClusterState) -> Iterator[_Row]:
    for job in state.jobs:
        if job.failed:
            for condition in ("true", "false", "unknown"):
                yield job.labels | {"condition": condition}, float(condition == "true")


def _complete_jobs(state: ClusterState) -> Iterator[_Row]:
    for job in state.jobs:
        if not job.failed:
            for condition in ("true", "false", "unknown"):
                yield job.labels | {"condition": condition}, float(condition == "true")


def _failures_of_jobs(state: ClusterState) -> Iterator[_Row]:
    for job in state.jobs:
        reason = {"reason": "BackoffLimitExceeded"} if job.failed else {}
        yield job.labels | reason, float(job.failed)


_FAMILIES: tuple[tuple[str, str, str, Callable[[ClusterState], Iterable[_Row]]], ...] = (
    ("kube_deployment_created", "gauge", "[STABLE] Unix creation timestamp",
     _deployments(lambda _: CREATED)),
    ("kube_deployment_spec_replicas", "gauge",
     "[STABLE] Number of desired pods for a deployment.",
     _deployments(lambda each: each.replicas)),
    ("kube_deployment_status_replicas", "gauge",
     "[STABLE] The number of replicas per deployment.",
     _deployments(lambda each: each.replicas)),
    ("kube_deployment_status_replicas_available", "gauge",
     "[STABLE] The number of available replicas per deployment.",
     _deployments(lambda each: each.available)),
    ("kube_deployment_status_replicas_updated", "gauge",
     "[STABLE] The number of updated replicas per deployment.",
     _deployments(lambda each: each.replicas)),
    ("kube_job_complete", "gauge", "[STABLE] The job has completed its execution.",
     _complete_jobs),
    ("kube_job_failed", "gauge", "[STABLE] The job has failed its execution.", _failed_jobs),
    ("kube_job_status_failed", "gauge",
     "[STABLE] The number of pods which reached Phase Failed and the reason for failure.",
     _failures_of_jobs),
    ("kube_namespace_created", "gauge", "[STABLE] Unix creation timestamp",
     lambda state: (({"namespace": name}, CREATED) for name, _ in _namespaces(state))),
    ("kube_namespace_labels", "gauge",
     "[STABLE] Kubernetes labels converted to Prometheus labels.", _labels_of_namespaces),
    ("kube_namespace_status_phase", "gauge", "[STABLE] kubernetes namespace status phase.",
     _phases_of_namespaces),
    ("kube_node_info", "gauge", "[STABLE] Information about a cluster node.",
     lambda state: (
         ({"node": node} | _NODE | {"internal_ip": "10.0.0.1"}, 1) for node in state.nodes
     )),
    ("kube_node_status_allocatable", "gauge",
     ("[STABLE] The allocatable for different resources of a node that are available for "
     "scheduling."), _allocatable),
    ("kube_node_status_condition", "gauge", "[STABLE] The condition of a cluster node.",
     _conditions_of_nodes),
    ("kube_pod_container_info", "gauge",
     "[STABLE] Information about a container in a pod.",
     _containers(lambda _: 1, image_spec=lambda _: "registry.example.com/api:1.0",
                 image=lambda _: "registry.example.com/api:1.0", image_id=lambda _: "",
                 container_id=lambda _: "")),
    ("kube_pod_container_status_last_terminated_reason", "gauge",
     "Describes the last reason the container was in terminated state.",
     _containers(lambda pod: 1 if pod.terminated else None, reason=lambda pod: pod.terminated)),
    ("kube_pod_container_status_ready", "gauge",
     "[STABLE] Describes whether the containers readiness check succeeded.",
     _containers(lambda pod: float(pod.ready))),
    ("kube_pod_container_status_restarts_total", "counter",
     "[STABLE] The number of container restarts per container.",
     _containers(lambda pod: pod.restarts)),
    ("kube_pod_container_status_waiting_reason", "gauge",
     "[STABLE] Describes the reason the container is currently in waiting state.",
     _containers(lambda pod: 1 if pod.waiting else None, reason=lambda pod: pod.waiting)),
    ("kube_pod_created", "gauge", "[STABLE] Unix creation timestamp",
     lambda state: ((pod.labels, CREATED) for pod in state.pods)),
    ("kube_pod_info", "gauge", "[STABLE] Information about pod.", _pod_info),
    ("kube_pod_owner", "gauge", "[STABLE] Information about the Pod's owner.", _pod_owner),
    ("kube_pod_status_phase", "gauge", "[STABLE] The pods current phase.", _pod_phases),
    ("kube_pod_status_ready", "gauge",
     "[STABLE] Describes whether the pod is ready to serve requests.", _pod_ready),
)  # fmt: skip


def state_metrics(state: ClusterState) -> Iterator[bytes]:
    """The exposition, in pieces of one family each."""
    for name, kind, help_, rows in _FAMILIES:
        lines = [f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"]
        for labels, value in rows(state):
            pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{pairs}}} {_number(value)}\n")
        yield "".join(lines).encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """A number as Go's format `g` writes it."""
    if value < 1e6 and value == int(value):
        return str(int(value))
    mantissa, _, exponent = f"{value:.10e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
