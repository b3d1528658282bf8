"""Labels of pods on the recorded answers of real kubelets: lists of pods and metrics agree."""

from __future__ import annotations

import json
import re

import pytest

from kmproxy.config.loader import Layer, load
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.labels.pods import PodLabelReader, PodMap

OF_A_POD = re.compile(rb'[{,]namespace="([^"]+)"(?:,[a-z_]+="[^"]*")*,pod="([^"]+)"')
ADDED = re.compile(rb',workload="([^"]*)",workload_type="([^"]*)"')


def owners(items):
    """The kind of each pod's controller as the kubelet lists it, or that of a pod without one."""
    found = {}
    for item in items:
        meta = item["metadata"]
        references = meta.get("ownerReferences") or []
        kinds = [each["kind"] for each in references if each.get("controller")]
        static = meta.get("annotations", {}).get("kubernetes.io/config.source") in {"file", "http"}
        found[meta["namespace"].encode(), meta["name"].encode()] = (
            {"static"} if static or kinds == ["Node"] else set(kinds) or {"bare"}
        )
    return found


EXPECTED = {
    b"deployment": "ReplicaSet",
    b"replicaset": "ReplicaSet",
    b"statefulset": "StatefulSet",
    b"daemonset": "DaemonSet",
    b"job": "Job",
    b"cronjob": "Job",
    b"staticpod": "static",
    b"barepod": "bare",
}


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.35", "1.36"])
@pytest.mark.parametrize("endpoint", ["cadvisor", "resource", "probes"])
def test_a_real_kubelet(corpus, version, endpoint):
    """Each sample of a pod gets the workload of that pod, and no other byte changes."""
    folder = corpus / version
    path = folder / f"{endpoint}.prom"
    if not path.exists():
        pytest.skip("this endpoint of this version is not recorded")
    text, listed = path.read_bytes(), (folder / "pods.json").read_bytes()
    config, _ = load([Layer("command line", "--", {"workload": ("true",)})])
    reader = PodLabelReader(config.pods, max_value=1024)
    reader.feed(listed)
    pods = PodMap()
    pods.swap(reader.finish(), 0.0)
    recipe = Recipe(names=frozenset({b"workload", b"workload_type"}), pods=True)
    pipeline = Pipeline(lambda _: b"", recipe, pods=pods.lookup)
    output = pipeline.feed(text) + pipeline.finish()
    assert pipeline.dropped["unknown_pod"] == 0
    assert ADDED.sub(b"", output) == text
    kinds = owners(json.loads(listed)["items"])
    labelled = 0
    for line in output.splitlines():
        pod = None if line.startswith(b"#") else OF_A_POD.search(line)
        added = ADDED.findall(line)
        assert len(added) == (pod is not None), line
        if pod is not None:
            assert EXPECTED[added[0][1]] in kinds[pod.groups()], line
            labelled += 1
    assert labelled > 50
