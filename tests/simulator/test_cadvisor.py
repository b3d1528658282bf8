"""The simulated metrics text has the form of a real kubelet's."""

import re
import subprocess
from pathlib import Path

import pytest

from kmproxy.simulator.cadvisor import ENDPOINTS, NodeMetrics, format_float, simulate_node

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
RECORDED = {
    "/metrics/cadvisor": sorted(CORPUS.glob("*/cadvisor.prom")),
    "/metrics": [CORPUS / "1.36" / "metrics.prom"],
    "/metrics/resource": [CORPUS / "1.36" / "resource.prom"],
    "/metrics/probes": [CORPUS / "1.36" / "probes.prom"],
}
GONE = {
    "container_cpu_load_average_10s",
    "container_cpu_load_d_average_10s",
    "container_tasks_state",
}
"""Recorded, and no longer in the cAdvisor of Kubernetes 1.37."""
NOW = 1795208090.5
SAMPLE = re.compile(r'([a-z_:A-Z0-9]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)(?: (\d+))?')
PAIR = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')

with_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded corpus is not here")


@pytest.fixture
def metrics():
    """Return a node with all three kinds of pods in three namespaces."""
    namespaces = ("frontend-service1", "kube-system", "payments")
    return NodeMetrics(simulate_node("node-a", namespaces, started=NOW - 3600))


def samples(text):
    """Yield name, labels, value and timestamp of every sample; every line has to be parsed."""
    for line in text.splitlines():
        if not line.startswith("#"):
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value, timestamp = found.groups()
            yield name, dict(PAIR.findall(labels or "")), float(value), timestamp


def families(text):
    """Return, by family: help, type, and the set of (suffix, label names, has a timestamp)."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, *rest = line.split(" ", 3)
            found[name] = (" ".join(rest), set())
        elif line.startswith("# TYPE "):
            kind = line.rsplit(" ", 1)[1]
            found[name] = (found[name][0], kind, found[name][1])
        else:
            ((sample, labels, _, timestamp),) = samples(line)
            found[name][2].add((sample.removeprefix(name), tuple(labels), timestamp is not None))
    return found


def simulated(metrics, endpoint):
    """Return the text of an endpoint."""
    return metrics.text(endpoint, NOW).decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-1, "-1"),
        (0.25, "0.25"),
        (258048, "258048"),
        (999999.5, "999999.5"),
        (1e6, "1e+06"),
        (3085509, "3.085509e+06"),
        (25276502016, "2.5276502016e+10"),
        (-25276502016, "-2.5276502016e+10"),
        (1.7952079741426816e9, "1.7952079741426816e+09"),
        (2**64, "1.8446744073709552e+19"),
        (0.000026, "2.6e-05"),
        (0.0001, "0.0001"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_are_written_as_go_does(value, text):
    """A float looks as in a kubelet's text."""
    assert format_float(value) == text


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_same_seed_and_time_are_the_same_bytes(endpoint):
    """Two nodes with the same name, namespaces and start give the same bytes at a time."""
    first, second = (
        NodeMetrics(simulate_node("n", ["a", "b"], started=NOW - 60)).text(endpoint, NOW)
        for _ in range(2)
    )
    assert first == second
    assert first != NodeMetrics(simulate_node("m", ["a"], started=0)).text(endpoint, NOW)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_counters_grow_and_gauges_wander(metrics, endpoint):
    """No counter falls within a minute, and some sample of the endpoint changes."""
    before, after = (metrics.text(endpoint, NOW + each).decode() for each in (0, 60))
    known = families(before)
    counters = {name for name, (_, kind, _) in known.items() if kind in ("counter", "histogram")}
    old = {(name, *labels.items()): value for name, labels, value, _ in samples(before)}
    new = {(name, *labels.items()): value for name, labels, value, _ in samples(after)}
    assert old.keys() == new.keys()
    assert old != new
    for key, value in new.items():
        if re.sub("_(bucket|sum|count)$", "", key[0]) in counters or key[0] in counters:
            assert value >= old[key], key


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_series_occurs_twice(metrics, endpoint):
    """A series, by name and labels, has one sample."""
    series = [line.rsplit("}", 1)[0] for line in simulated(metrics, endpoint).splitlines()]
    assert len(series) == len(set(series))


def test_families_and_rows_are_sorted(metrics):
    """Families are sorted by name, rows by label values, as in a kubelet's text."""
    text = simulated(metrics, "/metrics/cadvisor")
    assert list(families(text)) == sorted(families(text))
    rows = {}
    for name, labels, _, _ in samples(text):
        assert list(labels) == sorted(labels)
        rows.setdefault(name, []).append(tuple(labels.values()))
    assert all(each == sorted(each) for each in rows.values())


def test_cgroups_of_every_kind(metrics):
    """Root, slice, pod, pause and container rows exist, with the blanks of real ones."""
    rows = [
        labels
        for name, labels, _, _ in samples(simulated(metrics, "/metrics/cadvisor"))
        if name == "container_memory_working_set_bytes"
    ]
    root, *_ = (each for each in rows if each["id"] == "/")
    assert set(root.values()) == {"/", ""}
    assert any(each["id"].startswith("/system.slice/") and not each["namespace"] for each in rows)
    pods = [each for each in rows if each["pod"] and not each["name"]]
    pauses = [each for each in rows if "pause" in each["image"]]
    containers = [each for each in rows if each["container"]]
    assert len(pods) == len(pauses) == 9
    assert all(not each["container"] and not each["image"] for each in pods)
    assert all(not each["container"] and each["name"] for each in pauses)
    assert len(containers) == sum(len(pod.containers) for pod in metrics.node.pods)
    assert {each["namespace"] for each in containers} == {
        "frontend-service1",
        "kube-system",
        "payments",
    }


def test_timestamps_are_the_last_housekeeping(metrics):
    """Samples of cAdvisor have a time in ms, at most 10 s old, one per control group."""
    times = {}
    for _, labels, _, timestamp in samples(simulated(metrics, "/metrics/cadvisor")):
        if timestamp is not None:
            assert 0 <= NOW * 1000 - int(timestamp) <= 10_001
            times.setdefault(labels["id"], set()).add(timestamp)
    assert all(len(each) == 1 for each in times.values())
    assert len(times) > 10


def test_histograms_are_cumulative(metrics):
    """Buckets never fall, and the last one equals the count."""
    text = simulated(metrics, "/metrics/probes")
    counts = [
        [
            value
            for name, at, value, _ in samples(text)
            if name.endswith("_bucket") and at["pod"] == pod
        ]
        for pod in {labels["pod"] for _, labels, _, _ in samples(text) if "pod" in labels}
    ]
    assert counts
    assert all(each[:12] == sorted(each[:12]) for each in counts)


@with_corpus
@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each != "/metrics"])
def test_every_recorded_family_occurs(metrics, endpoint):
    """Families, types, help texts, label names and timestamps are those of the recordings."""
    ours = families(simulated(metrics, endpoint))
    seen = set()
    for path in RECORDED[endpoint]:
        for name, (text, kind, shapes) in families(path.read_text()).items():
            if name in GONE:
                assert name not in ours
                continue
            assert ours[name][:2] == (text, kind), name
            assert shapes <= ours[name][2], (path, name)
            seen.add(name)
    assert set(ours) == seen


@with_corpus
def test_own_metrics_are_recorded_ones(metrics):
    """`/metrics` has only families of a real kubelet, with their types, texts and label names."""
    recorded = families(RECORDED["/metrics"][0].read_text())
    ours = families(simulated(metrics, "/metrics"))
    assert len(ours) > 20
    assert {name: recorded[name] for name in ours} == ours
    assert 'kubelet_volume_stats_used_bytes{namespace="payments",' in simulated(metrics, "/metrics")


@with_corpus
@pytest.mark.program("promtool")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_promtool_says_no_more_than_of_the_recordings(metrics, endpoint):
    """`promtool check metrics` complains only as it does about real texts."""

    def complaints(text):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        return set((done.stdout + done.stderr).splitlines())

    known = set().union(*(complaints(path.read_text()) for path in RECORDED[endpoint]))
    assert complaints(simulated(metrics, endpoint)) <= known
