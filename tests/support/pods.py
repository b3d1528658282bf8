"""Pod objects, and targets in one piece."""

from __future__ import annotations

import json
import re

from kmproxy.kube.pod_list import MAX_PARTS


def pod(name="web-0", *, containers=None, metadata=None, spec=None, **status):
    """A Pod object, by default with one container that listens on one port."""
    if containers is None:
        containers = [container("web", port(8080, "http"))]
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", **(metadata or {})},
        "spec": {"containers": containers, "nodeName": "node-a", **(spec or {})},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.0.2.1", **status},
    }


def container(name, *ports):
    """A container of a spec."""
    return {"name": name, "image": f"{name}:1"} | ({"ports": list(ports)} if ports else {})


def port(number, name=None, protocol="TCP"):
    """A container's port."""
    given = {"name": name, "containerPort": number, "protocol": protocol}
    return {key: value for key, value in given.items() if value is not None}


def flat(document):
    """Target groups as Prometheus reads them: strict keys, only strings, one address each."""
    groups = json.loads(document, object_pairs_hook=unique)
    targets = []
    for group in groups:
        assert set(group) == {"targets", "labels"}
        (address,) = group["targets"]
        assert all(type(value) is str for value in (address, *group["labels"].values()))
        assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in group["labels"])
        targets.append({"__address__": address} | group["labels"])
    return targets


def unique(pairs):
    """An object; raises for a repeated key."""
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def hostile_pods(size=(10 << 20) - 200):
    """Lists of one pod each, as long as a pod may be.

    Three have too many owners, labels or containers. The last one has as many labels,
    annotations and containers as a pod may have.
    """
    start = b'{"kind":"PodList","items":[{"metadata":{"namespace":"shop","name":"p"'
    yield start + b',"ownerReferences":[%b]}}]}' % b",".join([b"{}"] * (size // 6))
    yield start + b',"labels":{%b}}}]}' % _pairs(size)
    yield start + b'},"spec":{"containers":[%b]}}]}' % b",".join([b'{"name":""}'] * (size // 13))
    metadata = b',"labels":{%b},"annotations":{%b}}' % (_pairs(1 << 20), _pairs((1 << 20) - 99))
    most = MAX_PARTS - 5
    name = b"n" * ((size - len(metadata)) // most - 13)
    containers = b",".join([b'{"name":"%b"}' % name] * most)
    yield start + metadata + b',"spec":{"containers":[%b]}}]}' % containers


def _pairs(size):
    """As many pairs with keys of their own as fit into so many bytes with their braces."""
    text = b",".join(b'"%x":""' % number for number in range(size // 8))
    return text[: text.rindex(b",", 0, size - 2)]
