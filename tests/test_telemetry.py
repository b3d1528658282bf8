"""kmproxy's own metrics: names, bounded labels, and that Prometheus accepts them."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import kmproxy
from kmproxy.config.label_rules import parse_rules
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.exposition.engine import IN_USE
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.series import SeriesError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.kube.outage import Outage
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.labels.rendering import KnownLabels
from kmproxy.telemetry import CONTENT_TYPE, render
from tests.support.modules import MODULES
from tests.support.own_metrics import log_names, samples, shown_names

NAMES = {
    "kmproxy_build": "info",
    "kmproxy_certificate_expiry_timestamp_seconds": "gauge",
    "kmproxy_credential_errors": "counter",
    "kmproxy_discovery_age_seconds": "gauge",
    "kmproxy_discovery_fetches": "counter",
    "kmproxy_discovery_requests": "counter",
    "kmproxy_discovery_targets": "gauge",
    "kmproxy_discovery_left_out": "gauge",
    "kmproxy_kubelet_certificates_refused": "counter",
    "kmproxy_kubelet_pin_errors": "counter",
    "kmproxy_kubelet_pins": "gauge",
    "kmproxy_label_conflicts": "counter",
    "kmproxy_samples_dropped": "counter",
    "kmproxy_lines_unparsed": "counter",
    "kmproxy_labels_restored": "gauge",
    "kmproxy_namespaces": "gauge",
    "kmproxy_namespaces_sync_age_seconds": "gauge",
    "kmproxy_label_values_left_out": "gauge",
    "kmproxy_namespaces_without_label": "gauge",
    "kmproxy_pod_label_values_left_out": "gauge",
    "kmproxy_pod_lists": "counter",
    "kmproxy_pods": "gauge",
    "kmproxy_scrapes_without_pod_list": "counter",
    "kmproxy_pods_gone": "gauge",
    "kmproxy_reviews": "counter",
    "kmproxy_refused": "counter",
    "kmproxy_samples": "counter",
    "kmproxy_samples_enriched": "counter",
    "kmproxy_scrape_duration_seconds": "histogram",
    "kmproxy_scrapes": "counter",
    "kmproxy_scrapes_in_flight": "gauge",
    "kmproxy_shared_read_bytes": "gauge",
    "kmproxy_shared_reads": "counter",
    "kmproxy_unknown_pods": "counter",
    "kmproxy_upstream_errors": "counter",
    "kmproxy_snapshot_errors": "counter",
    "kmproxy_snapshot_saved_timestamp_seconds": "gauge",
    "kmproxy_watch_restarts": "counter",
}
"""The documented metrics, without the suffixes of their type."""


DECLARING = {"Counter", "CounterMetricFamily", "Gauge", "Histogram", "Info"}
NAME = re.compile(r"`(kmproxy_\w+)")


def watch(metrics, clock=lambda: 0.0):
    """A label map for the label `team`, and a watcher of it that does not run."""
    rules, _ = parse_rules(["team"], [], [])
    labels = LabelMap(rules, max_value=9)
    return labels, NamespaceWatcher(
        None,
        labels,
        metrics=metrics.watch,
        clock=clock,
        uniform=lambda least, _: least,
        outage=Outage(clock),
    )


@pytest.fixture
def metrics():
    """The metrics of a daemon that has done a little of everything."""
    metrics = OwnMetrics()
    watch(metrics)
    metrics.scrapes.count("/metrics", "200", 0.07)
    metrics.samples.count_dropped({"metric": 1})
    metrics.credential_errors.count("token")
    metrics.discovery.requests.labels("/sd/pods", "200").inc()
    metrics.discovery.fetches.labels("pod", "ok").inc()
    metrics.discovery.targets.labels("pod").set(7)
    metrics.discovery.left_out.labels("value").set(1)
    metrics.discovery.age.labels("pod").set(0)
    metrics.connections.refused.labels("form").inc()
    metrics.web_file.certificate_expiry.labels("serving").set(2e9)
    metrics.pins.refused.labels("changed").inc()
    metrics.pin_file.errors.labels("read").inc()
    metrics.snapshot.errors.labels("read").inc()
    metrics.upstream_errors.count("kubelet", "tls")
    metrics.watch.restarted("ended")
    metrics.reviews.reviewed("token", allowed=True)
    return metrics


def failures(metrics, reason):
    """The counts of upstream failures and watch restarts for a reason."""
    found = samples(metrics)
    why = ("reason", reason)
    return (
        found.get(("kmproxy_upstream_errors_total", why, ("upstream", "kubelet")), 0),
        found.get(("kmproxy_watch_restarts_total", why), 0),
    )


def test_every_metric_is_there(metrics):
    """Every metric has its type and its help, and no other metric exists."""
    families = {
        metric.name: metric for metric in metrics.registry.collect() if "process" not in metric.name
    }  # fmt: skip
    assert {name: metric.type for name, metric in families.items()} == NAMES
    assert all(metric.documentation.endswith(".") for metric in families.values())


def test_no_label_can_grow_without_bound(metrics):
    """No label is a namespace, node, pod, instance or client input."""
    labels = {
        label
        for metric in metrics.registry.collect()
        for sample in metric.samples
        for label in sample.labels
    }
    assert labels == {
        *(
            "path",
            "code",
            "upstream",
            "reason",
            "credential",
            "label",
            "le",
            "version",
            "python",
            "revision",
            "engine",
        ),
        *("role", "result", "kind", "certificate", "limit", "by", "operation"),
    }


def test_the_gauges_ask_when_they_are_scraped():
    """Size and age of the label map are current at each scrape."""
    metrics, now = OwnMetrics(), 10.0
    labels, watcher = watch(metrics, lambda: now)
    known = [KnownLabels("a", {"team": "x"}), KnownLabels("b", {}, lacking=("team",))]
    assert watcher.restore(labels.rendered_anew(known), age=1.5)
    for age, number, lacking, too_long in ((1.5, 2, 1, 0), (2.5, 3, 2, 1)):
        found = samples(metrics)
        assert found[("kmproxy_namespaces_sync_age_seconds",)] == age
        assert found[("kmproxy_labels_restored",)] == 1
        assert found[("kmproxy_namespaces",)] == number
        assert found[("kmproxy_namespaces_without_label", ("label", "team"))] == lacking
        assert found[("kmproxy_label_values_left_out", ("limit", "value"))] == too_long
        labels.put(ObjectMeta("c", {"team": "far too long"}))
        now += 1.0


def test_before_the_first_list_the_age_is_infinite(metrics):
    """An alert on the age also fires for a map that was never loaded."""
    assert b"kmproxy_namespaces_sync_age_seconds +Inf\n" in render(metrics.registry)


def calls():
    """Every call in our code but the simulator's: the name of the function, and the call."""
    for name, path in MODULES.items():
        if name.startswith("simulator."):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                function = node.func
                yield function.id if isinstance(function, ast.Name) else function.attr, node


def constant(call, position):
    """The argument of a call at a position if it is spelled out, else None."""
    argument = call.args[position] if len(call.args) > position else None
    return argument.value if isinstance(argument, ast.Constant) else None


def declared():
    """The name of each metric where it is declared."""
    return sorted(
        name
        for function, call in calls()
        if function in DECLARING and str(name := constant(call, 0)).startswith("kmproxy_")
    )


def test_every_metric_is_declared_once():
    """No class declares the metric of another, and no class is missing in the table."""
    logs = [name.removesuffix("_total") for name in log_names()]
    assert declared() == sorted([*NAMES, *logs])


def test_every_metric_of_the_documents_is_registered_once(metrics):
    """The table of metrics names what a daemon shows, each by the name that it is shown by."""
    page = Path(kmproxy.__file__).parents[1].joinpath("docs", "operations.md").read_text("utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `kmproxy_")]
    documented = [name for line in table for name in NAME.findall(line.split("|")[1])]
    assert len(shown_names(metrics.registry)) == len(NAMES)
    assert sorted(documented) == sorted([*shown_names(metrics.registry), *log_names()])


REASON_OF = {"UpstreamError": 0, "ApiError": 1, "restarted": 0, "failed": 1, "count": 1}
"""Functions that take a reason, and the position of its argument."""


def raised_reasons():
    """Every reason that is spelled out where an error is made or counted."""
    for function, call in calls():
        reason = constant(call, REASON_OF[function]) if function in REASON_OF else None
        if isinstance(reason, str):
            yield reason


def test_reasons_are_found():
    """Those of errors, of counters and of watches."""
    found = set(raised_reasons())
    assert {"no_node", "garbage", "moved", "too_many", "timeout", "ended"} <= found
    assert len(found) > 25


OTHERS = {"Expired", "Gone", "TooManyRequests", "credential", "ended", "redirect", "refused",
          "status", "unauthorized", "unreachable",
          *(each.reason for each in (SeriesError, RepeatedLabelError))}  # fmt: skip
"""Reasons that come from the API server's own list, or by a variable."""


@pytest.mark.parametrize("reason", sorted(OTHERS.union(raised_reasons())))
def test_a_reason_of_our_own_is_counted_by_its_name(reason):
    """Each reason of the code is a label value of its own."""
    metrics = OwnMetrics()
    metrics.upstream_errors.count("kubelet", reason)
    metrics.watch.restarted(reason)
    assert failures(metrics, reason) == (1, 1)


@pytest.mark.parametrize("reason", ["", "http_599", "MadeUp", 'a"b\n', "x" * 99])
def test_a_foreign_reason_is_other(reason):
    """An unknown reason of an upstream is counted as `other`."""
    metrics = OwnMetrics()
    metrics.upstream_errors.count("kubelet", reason)
    metrics.watch.restarted(reason)
    assert failures(metrics, "other") == (1, 1)


def test_two_daemons_do_not_share_a_registry(metrics):
    """Each has its own registry, and the global one is not used."""
    metrics.connections.refused.labels("rate").inc(5)
    rate = ("kmproxy_refused_total", ("reason", "rate"))
    assert samples(metrics)[rate] == 5
    assert rate not in samples(OwnMetrics())
    assert [each.name for each in REGISTRY.collect() if "kmproxy" in each.name] == []


def test_the_build_is_named(metrics):
    """One series has the version, the Python version and the engine in use."""
    build = [key for key in samples(metrics) if key[0] == "kmproxy_build_info"]
    assert len(build) == 1
    assert ("version", kmproxy.__version__) in build[0]
    assert ("engine", IN_USE) in build[0]


def test_the_process_is_measured(metrics):
    """Memory and CPU time have the names of every exporter."""
    found = samples(metrics)
    assert found[("process_resident_memory_bytes",)] > 1 << 20
    assert found[("process_cpu_seconds_total",)] > 0


def test_the_content_type_is_that_of_what_is_rendered(metrics):
    """Text format 0.0.4 without OpenMetrics' end mark, counters with their full name."""
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in render(metrics.registry)
    assert b"_created" not in render(metrics.registry)
    assert b"# TYPE kmproxy_samples_total counter\n" in render(metrics.registry)


@pytest.mark.program("promtool")
def test_promtool_has_nothing_to_say(metrics):
    """Prometheus' linter accepts names, help and types."""
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=render(metrics.registry),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (check.stdout + check.stderr).decode() == ""
    assert check.returncode == 0
