"""The dashboards: every query parses, and uses existing metrics only."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from kmproxy.daemon.logs_metrics import LogsMetrics
from kmproxy.telemetry import render
from tests.support.expressions import metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests/components/dashboard"
DASHBOARDS = sorted(path.stem for path in FOLDER.glob("*.json"))
RULES = ROOT / "manifests/components/rules"

VARIABLES = {
    "$__rate_interval": "5m",
    "$cluster": ".*",
    "$team": ".+",
    "$namespace": ".*",
    "$workload": ".*",
    "$instance": ".*",
}
PROMETHEUS_OWN = {"ALERTS", "up"}
ELSEWHERE = {
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_available",
    "kube_deployment_status_replicas_updated",
    "kube_job_failed",
    "kube_pod_container_status_last_terminated_reason",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_waiting_reason",
    "kube_pod_owner",
    "kube_pod_status_phase",
}
"""Metrics of kube-state-metrics, if kmproxy also enriches those."""

every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def dashboard(name):
    """A dashboard as Grafana reads it."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def queries(name):
    """The expression of every panel and variable, with values for the variables."""
    document = dashboard(name)
    found = [target["expr"] for panel in document["panels"] for target in panel.get("targets", ())]
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            found += re.findall(r"^label_values\((.+), \w+\)$", variable["query"]["query"])
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def exposed(text):
    """The sample names of an exposition, also those of idle counters."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        parts = ("_bucket", "_sum", "_count") if kind in {"histogram", "summary"} else ("",)
        names |= {name + part for part in parts}
    return names


def test_the_reading_of_metrics():
    """Metric names are found; functions, labels, keywords and text are not."""
    expression = (
        'topk(3, sum by (team) (rate(a_total{b="c{d}"}[5m])) / on (e) (f:g > bool 0)) and h'
    )
    assert metrics(expression) == {"a_total", "f:g", "h"}


@pytest.mark.program("promtool")
@every_dashboard
def test_every_query_parses(name, tmp_path):
    """Each query parses with promtool, as the expression of a rule."""
    asked = queries(name)
    assert len(asked) > 10
    assert not any("$" in expression for expression in asked)
    records = [
        {"record": f"query:{number}", "expr": expression} for number, expression in enumerate(asked)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}), "utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(asked)} rules found" in done.stdout


async def there(front):
    """The metrics of a scrape through the daemon, of the daemon itself, and of `kmproxy logs`."""
    proxy = await front()
    status, enriched = await proxy.get()
    assert status == 200
    of_logs = render(LogsMetrics().registry).decode()
    return exposed(enriched) | exposed((await proxy.probe("/metrics"))[1]) | exposed(of_logs)


def recorded():
    """The names that the rules record."""
    found = set()
    for path in RULES.glob("*.rules.yaml"):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            found |= {rule["record"] for rule in group["rules"] if "record" in rule}
    return found


@every_dashboard
async def test_every_query_asks_for_what_there_is(name, front):
    """Each metric is in a scrape of the simulated cluster, in our own, or recorded."""
    known = await there(front) | recorded() | PROMETHEUS_OWN
    for expression in queries(name):
        assert metrics(expression)
        assert metrics(expression) <= known, expression


@every_dashboard
def test_clusters_are_kept_apart(name):
    """Every query selects the chosen clusters, and keeps the cluster label."""
    document = dashboard(name)
    asked = [target["expr"] for panel in document["panels"] for target in panel.get("targets", ())]
    for expression in asked:
        assert 'cluster=~"$cluster"' in expression
        kept = re.findall(r"(?<![\w:])(?:sum|max|min|count) ?(?:by \((\w+)|\()", expression)
        kept += re.findall(r"\b(?:on|by) \((\w+)", expression)
        assert set(kept) <= {"cluster"}, expression
    assert document["templating"]["list"][1]["name"] == "cluster"


async def test_every_rule_asks_for_what_there_is(front):
    """Each metric of a rule is exposed here, or listed in `ELSEWHERE`."""
    known = await there(front) | recorded() | PROMETHEUS_OWN | ELSEWHERE
    for path in RULES.glob("*.rules.yaml"):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                assert metrics(rule["expr"]) <= known, rule["expr"]


@every_dashboard
def test_the_form(name):
    """Panels have unique numbers and places, a selectable data source, and a title."""
    document = dashboard(name)
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$(\w+)", json.dumps(document))) - {"__rate_interval", "__all"}
    declared = {variable["name"] for variable in document["templating"]["list"]} - {"datasource"}
    assert used == declared
    assert declared <= {variable.lstrip("$") for variable in VARIABLES}
