"""How much of one pod in a kubelet's list is decoded: beyond it, the list is none."""

from __future__ import annotations

import json

import pytest

from kmproxy.config.pod_labels import PodConfig
from kmproxy.discovery.pods import MAX_TEXTS, PodReader
from kmproxy.errors import UpstreamError
from kmproxy.kube.pod_list import MAX_LABELS, MAX_PARTS
from kmproxy.labels.pods import PodLabelReader
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


def is_taken(reader, pod):
    """Whether a list of this pod is understood."""
    pod["metadata"] |= {"name": "p", "namespace": "shop"}
    body = json.dumps({"kind": "PodList", "items": [pod]}, separators=(",", ":")).encode()
    try:
        reader.feed(body)
        reader.finish()
    except UpstreamError as error:
        return error.reason != "garbage"
    return True


def mapping(size):
    """A mapping whose JSON has this size."""
    return {"a": "x" * (size - len('{"a":""}'))}


@pytest.mark.parametrize("reader", [targets, labels])
def test_the_labels_of_a_pod(reader):
    """They have 1 MiB of JSON at most. A pair takes many times its JSON in memory."""
    assert is_taken(reader(), {"metadata": {"labels": mapping(MAX_LABELS)}})
    assert not is_taken(reader(), {"metadata": {"labels": mapping(MAX_LABELS + 1)}})
    assert is_taken(reader(), {"metadata": {"labels": None}})
    assert not is_taken(reader(), {"metadata": {"labels": {"a": 1}}})


def test_the_labels_and_annotations_of_a_target():
    """They have 2 MiB of JSON together. Readers of labels read no other annotation than one."""
    room = MAX_TEXTS - MAX_LABELS
    metadata = {"labels": mapping(MAX_LABELS), "annotations": mapping(room)}
    assert is_taken(targets(), {"metadata": metadata})
    metadata["annotations"] = mapping(room + 1)
    assert not is_taken(targets(), {"metadata": metadata})
    assert is_taken(labels(), {"metadata": metadata})
    assert not is_taken(targets(), {"metadata": {"annotations": {"a": 1}}})


@pytest.mark.parametrize("reader", [targets, labels, logs])
def test_the_objects_of_a_pod(reader):
    """They are counted before the pod is decoded."""
    most = MAX_PARTS - 3  # the pod, its metadata and its spec
    for number, taken in ((most, True), (most + 1, False)):
        containers = [{"name": "c"}] * number
        assert is_taken(reader(), {"metadata": {}, "spec": {"containers": containers}}) is taken


@pytest.mark.parametrize("reader", [targets, labels])
def test_an_owner_has_a_kind_and_a_name(reader):
    """Kubernetes refuses others, and millions of empty ones would fit into a pod."""
    good = {"kind": "Job", "name": "j"}
    assert is_taken(reader(), {"metadata": {"ownerReferences": [good]}})
    for missing in good:
        owner = {key: value for key, value in good.items() if key != missing}
        assert not is_taken(reader(), {"metadata": {"ownerReferences": [owner]}})


def test_a_status_has_a_name_and_a_number():
    """So a list of millions of empty ones is none."""
    good = {"name": "c", "restartCount": 0}
    assert is_taken(logs(), {"metadata": {}, "status": {"containerStatuses": [good]}})
    for missing in good:
        status = {key: value for key, value in good.items() if key != missing}
        assert not is_taken(logs(), {"metadata": {}, "status": {"containerStatuses": [status]}})
