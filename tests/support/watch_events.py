"""Events of a watch as an API server sends them, and a watch state that reads them."""

import json

from kmproxy.kube.watch import WatchState

ANNOTATIONS = {"owner": "o"}
STATUS_410 = {"kind": "Status", "status": "Failure", "message": "too old resource version: 1 (9)",
              "reason": "Expired", "code": 410}  # fmt: skip


def middle(low, high):
    """A random source that always draws the middle."""
    return (low + high) / 2


def event(kind, obj):
    """A line of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def namespace(kind, name, version, **labels):
    """An event of a namespace, with more in it than matters."""
    metadata = {"name": name, "resourceVersion": version, "labels": labels, "uid": "u",
                "annotations": ANNOTATIONS, "managedFields": [{"manager": "kubectl"}]}  # fmt: skip
    return event(kind, {"kind": "PartialObjectMetadata", "metadata": metadata})


def bookmark(version):
    """A BOOKMARK as a real API server sends it."""
    metadata = {"resourceVersion": version, "creationTimestamp": None}
    return event("BOOKMARK", {"kind": "PartialObjectMetadata", "metadata": metadata})


def watching(version="100"):
    """A state in a watch that follows a list of this version."""
    state = WatchState(uniform=middle)
    state.listed(version)
    state.watch_params()
    return state


def at(state):
    """The version that the state would resume from."""
    return state.list_params()["resourceVersion"]
