"""A simulated node whose pods come and go, and the labels of their samples."""

from __future__ import annotations

import re
from dataclasses import replace

from kmproxy.simulator.pods import kubelet_pods

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} ", re.MULTILINE)
_PAIR = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def add_pod(kubelet, name, namespace="payments"):
    """Let a node run one more pod, a copy of its first one under another name."""
    first = next(pod for pod in kubelet.node.pods if pod.namespace == namespace)
    made = replace(first, name=name, uid=f"{name}-uid", sandbox=name.encode().hex().ljust(64, "0"))
    kubelet.node = replace(kubelet.node, pods=(*kubelet.node.pods, made))


def listed(kubelet):
    """The Pod objects that a kubelet lists. Tests change them and hand them back."""
    return kubelet_pods(kubelet.node, kubelet.host)


def bear(text):
    """The labels of each pod's samples: (namespace, pod) -> the added labels, as a set of texts.

    Every sample's labels are read; a name that a sample bears twice fails.
    """
    found = {}
    for _, labels in _SAMPLE.findall(text):
        pairs = _PAIR.findall(labels)
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), labels
        of = dict(pairs)
        if of.get("pod"):
            added = re.search(
                r'pod="[^"]*",?((?:(?:app|tier|workload|workload_type)="[^"]*",?)*)', labels
            )
            found.setdefault((of["namespace"], of["pod"]), set()).add(added[1].rstrip(","))
    return found


def lists(kubelet):
    """How often a kubelet was asked for its pods."""
    return sum(record.path == "/pods" for record in kubelet.requests)
