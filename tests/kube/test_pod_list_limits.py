"""How much of one pod in a kubelet's list is decoded: beyond it, the pod is not read.

etcd takes such pods, so a list with one is a list, and has the other pods.
"""

from __future__ import annotations

import json

import pytest

from kmproxy.config.pod_labels import PodConfig
from kmproxy.discovery.documents import TargetList
from kmproxy.discovery.pods import MAX_TEXTS, PodReader
from kmproxy.errors import UpstreamError
from kmproxy.kube.pod_list import MAX_LABELS, MAX_PARTS
from kmproxy.labels.pods import PodLabelReader, PodListing
from kmproxy.logs.pods import LogPodReader, LogSelection


def targets():
    """A reader of pods as targets."""
    return PodReader(lambda _: True)


def labels():
    """A reader of the labels of pods."""
    return PodLabelReader(PodConfig(), max_value=1024)


def logs():
    """A reader of the containers whose logs are read."""
    return LogPodReader(LogSelection())


def read(reader, pod):
    """What a reader makes of a list with this pod: `pod`, `unread`, or `garbage`."""
    pod["metadata"] |= {"name": "p", "namespace": "shop", "uid": "u"}
    body = json.dumps({"kind": "PodList", "items": [pod]}, separators=(",", ":")).encode()
    try:
        reader.feed(body)
        found = reader.finish()
    except UpstreamError as error:
        return error.reason
    if isinstance(found, PodListing):
        assert found.rendered[b"shop"].keys() == {b"p"}
        return "unread" if found.left_out else "pod"
    if isinstance(found, TargetList):
        return "unread" if found.left_out["list"] else "pod"
    return "unread" if reader.left_out else "pod"


def mapping(size):
    """A mapping whose JSON has this size."""
    return {"a": "x" * (size - len('{"a":""}'))}


@pytest.mark.parametrize("reader", [targets, labels])
def test_the_labels_of_a_pod(reader):
    """They have 1 MiB of JSON at most. A pair takes many times its JSON in memory."""
    assert read(reader(), {"metadata": {"labels": mapping(MAX_LABELS)}}) == "pod"
    assert read(reader(), {"metadata": {"labels": mapping(MAX_LABELS + 1)}}) == "unread"
    assert read(reader(), {"metadata": {"labels": None}}) == "pod"
    assert read(reader(), {"metadata": {"labels": {"a": 1}}}) == "garbage"


def test_the_labels_and_annotations_of_a_target():
    """They have 2 MiB of JSON together. Readers of labels read no other annotation than one."""
    room = MAX_TEXTS - MAX_LABELS
    metadata = {"labels": mapping(MAX_LABELS), "annotations": mapping(room)}
    assert read(targets(), {"metadata": metadata}) == "pod"
    metadata["annotations"] = mapping(room + 1)
    assert read(targets(), {"metadata": metadata}) == "unread"
    assert read(labels(), {"metadata": metadata}) == "pod"
    assert read(targets(), {"metadata": {"annotations": {"a": 1}}}) == "garbage"


@pytest.mark.parametrize("reader", [targets, labels, logs])
def test_the_objects_of_a_pod(reader):
    """They are counted before the pod is decoded."""
    most = MAX_PARTS - 3  # the pod, its metadata and its spec
    for number, found in ((most, "pod"), (most + 1, "unread")):
        containers = [{"name": "c"}] * number
        assert read(reader(), {"metadata": {}, "spec": {"containers": containers}}) == found


def test_a_pod_of_a_person_who_wants_to_blind_others():
    """The other pods of the node are known, and its own samples pass without labels of pods."""
    env = b",".join([b'{"name":"A"}'] * 250_000)  # about what 1.5 MiB of etcd hold
    large = b'{"metadata":{"name":"evil","namespace":"shop"},"spec":{"containers":[{"env":[%b]}]}}'
    escaped = b'{"metadata":{"name":"odd","namespace":"shop"},"spec":"%b"}' % (
        b"\\u003c" * 1_570_000
    )
    good = b'{"metadata":{"name":"web-0","namespace":"shop"}}'
    body = b'{"items":[%b,%b,%b]}' % (large % env, escaped, good)
    reader = PodLabelReader(PodConfig(workload=True), max_value=1024)
    for at in range(0, len(body), 1 << 16):
        reader.feed(body[at : at + (1 << 16)])
    found = reader.finish().rendered[b"shop"]
    assert found.keys() == {b"evil", b"odd", b"web-0"}
    assert found[b"evil"] == b""
    assert b'workload="web-0"' in found[b"web-0"]


@pytest.mark.parametrize("reader", [targets, labels])
def test_an_owner_has_a_kind_and_a_name(reader):
    """Kubernetes refuses others, and millions of empty ones would fit into a pod."""
    good = {"kind": "Job", "name": "j"}
    assert read(reader(), {"metadata": {"ownerReferences": [good]}}) == "pod"
    for missing in good:
        owner = {key: value for key, value in good.items() if key != missing}
        assert read(reader(), {"metadata": {"ownerReferences": [owner]}}) == "garbage"


def test_a_status_has_a_name_and_a_number():
    """So a list of millions of empty ones is none."""
    good = {"name": "c", "restartCount": 0}
    assert read(logs(), {"metadata": {}, "status": {"containerStatuses": [good]}}) == "pod"
    for missing in good:
        status = {key: value for key, value in good.items() if key != missing}
        assert (
            read(logs(), {"metadata": {}, "status": {"containerStatuses": [status]}}) == "garbage"
        )
