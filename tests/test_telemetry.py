"""kmproxy's own metrics: names, bounded labels, and that Prometheus accepts them."""

import ast
import math
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import kmproxy
from kmproxy.telemetry import CONTENT_TYPE, Telemetry
from tests.support.own_metrics import samples

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
    "kmproxy_reviews": "counter",
    "kmproxy_refused": "counter",
    "kmproxy_samples": "counter",
    "kmproxy_samples_enriched": "counter",
    "kmproxy_scrape_duration_seconds": "histogram",
    "kmproxy_scrapes": "counter",
    "kmproxy_scrapes_in_flight": "gauge",
    "kmproxy_upstream_errors": "counter",
    "kmproxy_snapshot_errors": "counter",
    "kmproxy_snapshot_saved_timestamp_seconds": "gauge",
    "kmproxy_watch_restarts": "counter",
}
"""The documented metrics, without the suffixes of their type."""


@pytest.fixture
def telemetry():
    """The metrics of a daemon that has done a little of everything."""
    telemetry = Telemetry()
    telemetry.follow(
        namespaces=lambda: 312,
        lacking={"team": lambda: 12},
        left_out={"value": lambda: 2},
        sync_age=lambda: math.inf,
        restored=lambda: 0,
    )
    telemetry.scrapes.labels("/metrics", "200").inc()
    telemetry.scrape_duration.labels("/metrics").observe(0.07)
    telemetry.credential_errors.labels("token").inc()
    telemetry.discovery_requests.labels("/sd/pods", "200").inc()
    telemetry.discovery_fetches.labels("pod", "ok").inc()
    telemetry.discovery_targets.labels("pod").set(7)
    telemetry.discovery_left_out.labels("value").set(1)
    telemetry.discovery_age.labels("pod").set(0)
    telemetry.refused.labels("form").inc()
    telemetry.certificate_expiry.labels("serving").set(2e9)
    telemetry.upstream_failed("kubelet", "tls")
    telemetry.watch_restarted("ended")
    telemetry.reviewed("token", allowed=True)
    return telemetry


def failures(telemetry, reason):
    """The counts of upstream failures and watch restarts for a reason."""
    found = samples(telemetry)
    why = ("reason", reason)
    return (
        found.get(("kmproxy_upstream_errors_total", why, ("upstream", "kubelet")), 0),
        found.get(("kmproxy_watch_restarts_total", why), 0),
    )


def test_every_metric_is_there(telemetry):
    """Every metric has its type and its help, and no other metric exists."""
    families = {
        metric.name: metric for metric in telemetry.registry.collect() if "process" not in metric.name
    }  # fmt: skip
    assert {name: metric.type for name, metric in families.items()} == NAMES
    assert all(metric.documentation.endswith(".") for metric in families.values())


def test_no_label_can_grow_without_bound(telemetry):
    """No label is a namespace, node, pod, instance or client input."""
    labels = {
        label
        for metric in telemetry.registry.collect()
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
        ),
        *("role", "result", "kind", "certificate", "limit"),
    }


def test_the_gauges_ask_when_they_are_scraped():
    """Size and age of the label map are current at each scrape."""
    ages = iter([1.5, 2.5])
    telemetry = Telemetry()
    telemetry.follow(
        namespaces=lambda: 7,
        lacking={"team": lambda: 3},
        left_out={"value": lambda: 4},
        sync_age=lambda: next(ages),
        restored=lambda: 1,
    )
    for age in (1.5, 2.5):
        found = samples(telemetry)
        assert found[("kmproxy_namespaces_sync_age_seconds",)] == age
        assert found[("kmproxy_namespaces",)] == 7
        assert found[("kmproxy_namespaces_without_label", ("label", "team"))] == 3
        assert found[("kmproxy_label_values_left_out", ("limit", "value"))] == 4


def test_before_the_first_list_the_age_is_infinite(telemetry):
    """An alert on the age also fires for a map that was never loaded."""
    assert b"kmproxy_namespaces_sync_age_seconds +Inf\n" in telemetry.render()


def raised_reasons():
    """Every literal reason of an UpstreamError or ApiError in the code."""
    package = Path(kmproxy.__file__).parent
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "simulator"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                position = {"UpstreamError": 0, "ApiError": 1}.get(node.func.id)
                argument = node.args[position] if position is not None and node.args else None
                if isinstance(argument, ast.Constant):
                    yield argument.value


OTHERS = {"Expired", "Gone", "TooManyRequests", "credential", "ended", "redirect", "refused",
          "status", "unauthorized", "unreachable"}  # fmt: skip
"""Reasons that come from the API server's own list, or by a variable."""


@pytest.mark.parametrize("reason", sorted(OTHERS.union(raised_reasons())))
def test_a_reason_of_our_own_is_counted_by_its_name(reason):
    """Each reason of the code is a label value of its own."""
    telemetry = Telemetry()
    telemetry.upstream_failed("kubelet", reason)
    telemetry.watch_restarted(reason)
    assert failures(telemetry, reason) == (1, 1)


@pytest.mark.parametrize("reason", ["", "http_599", "MadeUp", 'a"b\n', "x" * 99])
def test_a_foreign_reason_is_other(reason):
    """An unknown reason of an upstream is counted as `other`."""
    telemetry = Telemetry()
    telemetry.upstream_failed("kubelet", reason)
    telemetry.watch_restarted(reason)
    assert failures(telemetry, "other") == (1, 1)


def test_two_daemons_do_not_share_a_registry(telemetry):
    """Each has its own registry, and the global one is not used."""
    telemetry.samples.inc(5)
    assert samples(Telemetry())[("kmproxy_samples_total",)] == 0
    assert REGISTRY.get_sample_value("kmproxy_samples_total") is None


def test_the_build_is_named(telemetry):
    """One series has the version and the Python version."""
    build = [key for key in samples(telemetry) if key[0] == "kmproxy_build_info"]
    assert len(build) == 1
    assert ("version", kmproxy.__version__) in build[0]


def test_the_process_is_measured(telemetry):
    """Memory and CPU time have the names of every exporter."""
    found = samples(telemetry)
    assert found[("process_resident_memory_bytes",)] > 1 << 20
    assert found[("process_cpu_seconds_total",)] > 0


def test_the_content_type_is_that_of_what_is_rendered(telemetry):
    """Text format 0.0.4 without OpenMetrics' end mark, counters with their full name."""
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in telemetry.render()
    assert b"_created" not in telemetry.render()
    assert b"# TYPE kmproxy_samples_total counter\n" in telemetry.render()


@pytest.mark.program("promtool")
def test_promtool_has_nothing_to_say(telemetry):
    """Prometheus' linter accepts names, help and types."""
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=telemetry.render(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (check.stdout + check.stderr).decode() == ""
    assert check.returncode == 0
