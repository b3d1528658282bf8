"""The exposition of kube-state-metrics that the simulator makes, and a copy of it at hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kmproxy.simulator.state_metrics import CONTENT_TYPE, state_metrics, usual_state
from tests.support.exporters import Exporter, answer, config_file

RECORDED = Path(__file__).with_name("kube-state-metrics.prom")
"""What the generator makes of `NAMESPACES`, for people to read and for other tests."""

NAMESPACES = {
    "payments": {"kubernetes.io/metadata.name": "payments", "team": "payments"},
    "shop": {"kubernetes.io/metadata.name": "shop", "team": "frontend"},
    "no-team": {"kubernetes.io/metadata.name": "no-team"},
}


def made(pods=2):
    """The text for the namespaces."""
    return b"".join(state_metrics(usual_state(NAMESPACES, ("node-a", "node-b"), pods)))


def families(text):
    """The families of a text, by name."""
    return {each.name: each for each in text_string_to_metric_families(text.decode())}


def test_the_copy():
    """The same state makes the same text. If the generator changes, write the copy again."""
    assert RECORDED.read_bytes() == made()


def test_its_shape():
    """Each family has HELP and TYPE, once; no series stands twice."""
    text = made().decode()
    found = families(text.encode())
    assert len(found) == text.count("# TYPE ") == text.count("# HELP ")
    assert all(each.documentation and each.type in {"gauge", "counter"} for each in found.values())
    series = Counter(line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#")
    assert set(series.values()) == {1}


def test_whose_samples_they_are():
    """All but those of nodes bear the label `namespace`."""
    for name, family in families(made()).items():
        for sample in family.samples:
            assert ("namespace" in sample.labels) != name.startswith("kube_node_")


def test_what_alerts_need():
    """A pod that was killed for its memory, a Deployment without a replica, a failed Job."""
    found = families(made())
    (killed,) = found["kube_pod_container_status_last_terminated_reason"].samples
    assert (killed.labels["namespace"], killed.labels["reason"]) == ("no-team", "OOMKilled")
    (waiting,) = found["kube_pod_container_status_waiting_reason"].samples
    assert waiting.labels["reason"] == "CrashLoopBackOff"
    available = found["kube_deployment_status_replicas_available"].samples
    assert [sample.value for sample in available] == [1, 2, 2]
    failed = [s for s in found["kube_job_failed"].samples if s.labels["condition"] == "true"]
    assert [sample.labels["job_name"] for sample in failed] == ["backup-29453"]
    labels = {s.labels["namespace"]: s.labels for s in found["kube_namespace_labels"].samples}
    assert labels["shop"]["label_team"] == "frontend"
    assert "label_team" not in labels["no-team"]


async def test_behind_the_proxy(front, cluster, tmp_path):
    """Every sample of a namespace with a team gets that label, and the rest is as it came."""
    for name, labels in NAMESPACES.items():
        cluster.api.namespaces.apply(name, {k: v for k, v in labels.items() if k == "team"})
    text = RECORDED.read_bytes()
    async with Exporter(answer(text, kind=CONTENT_TYPE)) as exporter:
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))
        status, served = await proxy.get("/upstreams/ksm/metrics")
    assert status == 200
    teams = {name: labels.get("team") for name, labels in NAMESPACES.items()}
    for family in families(served.encode()).values():
        for sample in family.samples:
            team = teams.get(sample.labels.get("namespace"))
            assert sample.labels.get("team") == team
    back = served
    for team in ("payments", "frontend"):
        back = back.replace(f',team="{team}"', "")
    assert back.encode() == text
