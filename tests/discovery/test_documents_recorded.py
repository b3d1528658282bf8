"""Recorded lists of pods: every label of every target is read off the pod object."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import yaml

from kmproxy.discovery.pods import parse_pods
from kmproxy.kube.objects import ObjectMeta
from tests.support.pod_targets import SEEN, SOURCE, label_map
from tests.support.pods import flat

META = "__meta_kubernetes_"
# What a label has to be, read off the pod object by its path in it. `c` is the container, `s` its
# status, `p` its port.
PATHS = {
    "namespace": "metadata.namespace",
    "pod_name": "metadata.name",
    "pod_uid": "metadata.uid",
    "pod_ip": "status.podIP",
    "pod_host_ip": "status.hostIP",
    "pod_phase": "status.phase",
    "pod_node_name": "spec.nodeName",
    "pod_container_name": "c.name",
    "pod_container_image": "c.image",
    "pod_container_id": "s.containerID",
    "pod_container_port_name": "p.name",
    "pod_container_port_number": "p.containerPort",
    "pod_container_port_protocol": "p.protocol",
}


def at(document, path):
    """The text at a dotted path, or an empty text."""
    for key in path.split("."):
        document = (document or {}).get(key)
    return "" if document is None else str(document)


def expected_labels(given, owner, space):
    """The expected labels of one target, from the pod, its container or port, and the namespace."""
    labels = {
        META + name: at(given | owner, path)
        for name, path in PATHS.items()
        if not path.startswith("p.") or owner["p"]
    }
    ready = [c["status"] for c in given["status"]["conditions"] if c["type"] == "Ready"]
    labels[f"{META}pod_ready"] = {"True": "true", "False": "false"}[ready[0]]
    labels[f"{META}pod_container_init"] = str(owner["init"]).lower()
    for each in given["metadata"].get("ownerReferences", []):
        if each.get("controller"):
            labels[f"{META}pod_controller_kind"] = each["kind"]
            labels[f"{META}pod_controller_name"] = each["name"]
            hashed = given["metadata"].get("labels", {}).get("pod-template-hash")
            if each["kind"] == "ReplicaSet" and each["name"].endswith(f"-{hashed}"):
                labels[f"{META}pod_deployment_name"] = each["name"][: -len(hashed) - 1]
            if each["kind"] == "Job":
                labels[f"{META}pod_job_name"] = each["name"]
                if scheduled := re.fullmatch(r"(.+)-\d{8,}", each["name"], re.ASCII):
                    labels[f"{META}pod_cronjob_name"] = scheduled[1]
    own = {key: dict(given["metadata"].get(key) or {}) for key in ("labels", "annotations")}
    added = {
        key: own["annotations"].pop(key) for key in (SEEN, SOURCE) if key in own["annotations"]
    }
    if added.get(SOURCE) == "file":
        labels[f"{META}pod_controller_kind"] = "Node"
        labels[f"{META}pod_controller_name"] = given["spec"]["nodeName"]
    for role, metadata in (("pod", own), ("namespace", space["metadata"])):
        for kind in ("label", "annotation"):
            for key, value in (metadata.get(f"{kind}s") or {}).items():
                name = "".join(char if char.isalnum() else "_" for char in key)
                labels[f"{META}{role}_{kind}_{name}"] = value
                labels[f"{META}{role}_{kind}present_{name}"] = "true"
    labels["team"] = space["metadata"]["labels"]["team"]
    return labels


def expected_targets(given, space):
    """All expected targets of one pod object."""
    for init, spec, status in (
        (False, "containers", "containerStatuses"),
        (True, "initContainers", "initContainerStatuses"),
    ):
        for each in given["spec"].get(spec, []):
            state = [s for s in given["status"].get(status, []) if s["name"] == each["name"]]
            for one in each.get("ports") or [None]:
                owner = {"c": each, "s": state[0] if state else None, "p": one, "init": init}
                address = given["status"]["podIP"] + (f":{one['containerPort']}" if one else "")
                yield {"__address__": address} | expected_labels(given, owner, space)


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.35", "1.36"])
def test_recorded_lists(corpus, version):
    """Every pod of a real kubelet's list becomes exactly the expected targets."""
    folder = corpus / version
    spaces = {}
    listed = yaml.safe_load((folder / "namespaces.yaml").read_text("utf-8"))["items"]
    for space in listed:
        space["metadata"].setdefault("labels", {}).setdefault(
            "team", f"of-{space['metadata']['name']}"
        )
        spaces[space["metadata"]["name"]] = space
    body = (folder / "pods.json").read_bytes()
    labels = label_map(
        *(
            ObjectMeta(name, each["metadata"]["labels"], each["metadata"].get("annotations") or {})
            for name, each in spaces.items()
        )
    )
    got = flat(parse_pods(body, lambda _: True).render(labels.lookup))
    expected = [
        target
        for given in json.loads(body)["items"]
        if given["status"].get("podIP")
        for target in expected_targets(given, spaces[given["metadata"]["namespace"]])
    ]
    assert len(expected) > 10
    assert Counter(map(frozen, got)) == Counter(map(frozen, expected))


def frozen(target):
    """The labels in a form that can be counted."""
    return tuple(sorted(target.items()))
