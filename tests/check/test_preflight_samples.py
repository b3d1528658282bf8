"""The preflight reads samples and pods: it reports what the label rules would add."""

from __future__ import annotations

import re

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.support.preflight import message, results, row, to_add


@pytest.mark.parametrize(
    ("flags", "result", "words"),
    [
        (["--label=tema"], "warning", "no namespace has a value"),
        (["--label=tema", "--label-default=tema=x"], "warning", "no namespace has a value"),
        (["--label=*"], "ok", "3 of 7 namespaces have a value"),
        (["--annotation=owner"], "warning", "no namespace has a value"),
    ],
)
async def test_rules(preflight, flags, result, words):
    """A rule without any match is a warning: it is probably misspelled."""
    report, _ = await preflight.run(*flags)
    assert report.ok
    (subject,) = [row.subject for row in report.findings if row.check == "rule"][-1:]
    assert results(report)[subject] == result
    assert words in message(report, subject)


async def test_samples_as_they_would_be_served(preflight):
    """The shown samples are selected and stripped as the flags say."""
    flags = ("--namespace=payments", "--keep-metric=container_memory_.*", "--timestamps=strip")
    report, _ = await preflight.run(*flags)
    for sample in report.metrics.examples:
        assert re.fullmatch(
            r'container_memory_\w+\{.*,namespace="payments",team="payments".*\} \S+', sample
        )
    assert len(report.metrics.examples) == 3


async def test_an_exposition_without_samples(preflight, cluster):
    """An exposition without samples is a warning, not a failure."""
    cluster.kubelets["node-a"].fail(Fault.EMPTY)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"metrics": "warning"}
    cluster.kubelets["node-a"].fail(Fault.CUT_GZIP)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"metrics": "failed"}


@pytest.mark.parametrize(
    ("version", "granted", "expected", "words"),
    [
        ((1, 36), {"nodes/pods"}, {}, ""),
        ((1, 36), set(), {"get nodes/pods": "failed", "pods": "failed"}, "nodes/pods] and verbs"),
        (
            (1, 36),
            {"nodes/proxy"},
            {"get nodes/pods": "warning", "get nodes/proxy": "warning"},
            "",
        ),
        (
            (1, 32),
            {"nodes/pods"},
            {"get nodes/proxy": "failed", "pods": "failed"},
            "nodes/proxy] and verbs [get] (the kubelet is older than 1.33)",
        ),
        (
            (1, 32),
            set(),
            {"get nodes/proxy": "failed", "pods": "failed"},
            "nodes/proxy] and verbs [get] (the kubelet is older than 1.33)",
        ),
    ],
)
async def test_pods(preflight, cluster, version, granted, expected, words):
    """With --discovery the pods are listed once, and the used permission is named."""
    cluster.kubelets["node-a"].version = version
    for resource in granted:
        cluster.api.allow("get", resource)
    report, shown = await preflight.run("--discovery")
    assert results(report, but=("ok",)) == expected
    if words:
        assert words in message(report, "pods")
        resource = "nodes/proxy" if version < (1, 33) else "nodes/pods"
        assert to_add(shown) == [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
    else:
        pods = len(cluster.kubelets["node-a"].node.pods)
        assert message(report, "pods").endswith(f" targets of {pods} pods")
    assert "pods" not in results((await preflight.run())[0])


TEXT = "text/plain; version=0.0.4"


async def test_a_kubelet_that_asks_its_runtime(preflight, cluster):
    """A kubelet with metrics from its runtime gets a warning: limits may be missing."""
    report, _ = await preflight.run()
    assert row(report, "provider") is None
    body = b'kubelet_metrics_provider{provider="cri"} 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, path="/metrics", body=body, content_type=TEXT)
    report, shown = await preflight.run()
    assert report.ok
    result, message = row(report, "provider")
    assert (result, message.startswith("cri instead of cadvisor")) == ("warning", True)
    assert "metrics provider" in shown


@pytest.mark.parametrize("fault", [Fault.STATUS, Fault.DISCONNECT, Fault.CUT_CHUNKED])
async def test_a_kubelet_that_does_not_say(preflight, cluster, fault):
    """Without that fact there is no row."""
    cluster.kubelets["node-a"].fail(fault, path="/metrics")
    report, _ = await preflight.run()
    assert report.ok
    assert row(report, "provider") is None
    assert row(report, "metrics")[0] == "ok"


async def test_samples_of_containers_without_a_namespace(preflight, cluster):
    """Some runtimes give samples that cannot get labels: a warning."""
    body = b'a{id="/kubepods/x",container="c"} 1\na{id="/",namespace=""} 1\n'
    cluster.kubelets["node-a"].fail(
        Fault.BODY, path="/metrics/cadvisor", body=body, content_type=TEXT
    )
    report, _ = await preflight.run()
    result, message = row(report, "no-namespace")
    assert (result, message.startswith("1 samples have an id but no namespace")) == (
        "warning",
        True,
    )
