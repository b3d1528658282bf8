"""The memory that the labels of pods take, and the CPU time that a list of them costs."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc

import pytest

from kmproxy.config.pod_labels import PodConfig, PodRule
from kmproxy.labels.pods import PodLabelReader, PodMap

RULES = tuple(PodRule(key, key) for key in ("app", "component", "version"))


def body(count, *, owners):
    """A list of so many pods of so many owners, with what else real pods have."""
    items = [
        {
            "metadata": {
                "name": f"checkout-service-{number % owners:06}-{number:05}",
                "namespace": f"team-{number % 20}-production",
                "uid": f"{number:08}-0000-4000-8000-{number:012}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {
                    "app": f"checkout-service-{number % owners}",
                    "component": "backend",
                    "version": f"v1.2.{number % owners}",
                    "pod-template-hash": f"{number % owners:06}",
                    "unused": "x" * 63,
                },
                "annotations": {"unused": "y" * 2000, "kubernetes.io/config.source": "api"},
                "ownerReferences": [
                    {
                        "kind": "ReplicaSet",
                        "name": f"checkout-service-{number % owners:06}",
                        "uid": "z" * 36,
                        "controller": True,
                    }
                ],
            },
            "spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "e" * 2000}]}]},
            "status": {"podIP": "10.0.0.1"},
        }
        for number in range(count)
    ]
    return json.dumps({"kind": "PodList", "items": items}).encode()


@pytest.mark.parametrize("owners", [100, 500])
def test_500_pods_are_under_1_mib(owners):
    """Measured, and printed; and what the map says of itself is not less."""
    text = body(500, owners=owners)
    pods = PodMap()

    def read():
        reader = PodLabelReader(PodConfig(workload=True, rules=RULES), max_value=1024)
        for at in range(0, len(text), 65536):
            reader.feed(text[at : at + 65536])
        pods.swap(reader.finish(), 0.0)

    read()  # what the libraries keep for themselves
    tracemalloc.start()
    try:
        pods = PodMap()
        read()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sys.stdout.write(f"\n500 pods of {owners} owners: {taken:,} bytes of memory\n")
    assert len(pods) == 500
    assert taken < 1 << 20
    assert taken <= pods.size


@pytest.mark.parametrize("count", [30, 110, 250])
def test_the_time_to_read_a_list(count):
    """Printed, not asserted: the least of 20, without TLS."""
    text = body(count, owners=count)
    took = []
    for _ in range(20):
        begun = time.process_time()
        reader = PodLabelReader(PodConfig(workload=True, rules=RULES), max_value=1024)
        for at in range(0, len(text), 65536):
            reader.feed(text[at : at + 65536])
        listing = reader.finish()
        took.append(time.process_time() - begun)
    assert len(listing) == count
    sys.stdout.write(f"\n{count} pods, {len(text):,} bytes: {1e3 * min(took):.1f} ms of CPU\n")


@pytest.mark.parametrize("key", ["uid", "creationTimestamp"])
def test_texts_that_no_label_needs_are_not_kept(key):
    """UIDs and times of any length take no memory, until the list ends."""
    reader = PodLabelReader(PodConfig(workload=True), max_value=1024)
    reader.feed(b'{"items":[{"metadata":{"name":"first"}}')
    tracemalloc.start()
    try:
        for number in range(32):
            pod = {"name": f"pod-{number}", key: "x" * (1 << 20)}
            reader.feed(b"," + json.dumps({"metadata": pod}).encode())
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 << 20, f"{kept} bytes are kept of a list"
