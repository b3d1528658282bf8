"""The workload of a pod: the object that a person created to run it.

Knows how Kubernetes' controllers name what they create. Must not know where pods come from, or
how a workload is shown. Everything is read from the pod alone, without its owner's object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kmproxy.kube.pod_list import PodMeta

TEMPLATE_HASH = "pod-template-hash"
"""The label that a Deployment gives to its ReplicaSets and their pods."""

STATIC_SOURCES = frozenset({"file", "http"})
"""The sources of static pods. Their mirror pods in the API server have the node as controller."""

MINUTES = 8
"""Digits at least of the minutes since 1970 with which the name of a CronJob's Job ends."""


class Workload(NamedTuple):
    """The name of a workload, and its type: a kind in lower case, `staticpod` or `barepod`."""

    name: str
    type: str


def workload(meta: PodMeta, source: str) -> Workload:
    """The workload of a pod. `source` is the kubelet's source of the pod, such as `api`."""
    controller = meta.controller
    if source in STATIC_SOURCES or (controller is not None and controller.kind == "Node"):
        return Workload(meta.name, "staticpod")
    if controller is None:
        return Workload(meta.name, "barepod")
    match controller.kind:
        case "ReplicaSet" if name := deployment(controller.name, meta.labels):
            return Workload(name, "deployment")
        case "Job" if name := cronjob(controller.name):
            return Workload(name, "cronjob")
        case kind:
            return Workload(controller.name, kind.lower())


def deployment(replica_set: str, labels: Mapping[str, str]) -> str:
    """The Deployment of a ReplicaSet, by the labels of its pod. Empty if there is none."""
    hashed = labels.get(TEMPLATE_HASH)
    end = f"-{hashed}"
    return replica_set[: -len(end)] if hashed and replica_set.endswith(end) else ""


def cronjob(job: str) -> str:
    """The CronJob of a Job. Empty if there is none."""
    name, _, minutes = job.rpartition("-")
    return name if len(minutes) >= MINUTES and minutes.isascii() and minutes.isdigit() else ""
