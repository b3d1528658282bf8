"""The rules: records and alerts, tested by promtool; one source for both forms."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.documents import blocks, section
from tests.support.expressions import metrics

ROOT = Path(__file__).parents[2]
COMPONENTS = ROOT / "manifests/components"
NAMES = ("teams", "kmproxy", "kube-state-metrics", "workloads", "logs")
KEPT = {
    "teams": "(cluster, team, namespace, pod",
    "kube-state-metrics": "(cluster, team, namespace, ",
}
"""The labels that an alert about a team's objects keeps, by the file."""

every_file = pytest.mark.parametrize("name", NAMES)


def rules(name):
    """The rules of a file, in order."""
    document = yaml.safe_load((COMPONENTS / f"rules/{name}.rules.yaml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def cases(name):
    """The promtool cases for a file."""
    return yaml.safe_load((ROOT / f"tests/manifests/rules/{name}.test.yaml").read_text("utf-8"))[
        "tests"
    ]


@pytest.mark.program("promtool")
@every_file
def test_what_is_recorded_and_who_is_called(name):
    """In every case the series give exactly these records and alerts."""
    file = ROOT / f"tests/manifests/rules/{name}.test.yaml"
    done = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_file
def test_every_rule_has_its_cases(name):
    """A record is queried by name. An alert fires in one case, and does not in another."""
    asked = [test["expr"] for case in cases(name) for test in case.get("promql_expr_test", ())]
    alerts = [test for case in cases(name) for test in case.get("alert_rule_test", ())]
    for rule in rules(name):
        if "record" in rule:
            assert any(rule["record"] in expression for expression in asked), rule["record"]
        else:
            outcomes = {bool(a["exp_alerts"]) for a in alerts if a["alertname"] == rule["alert"]}
            assert outcomes == {True, False}, rule["alert"]


@every_file
def test_every_alert_can_be_routed(name):
    """By its team, from the series or the cluster's own. No aggregation loses it."""
    for rule in rules(name):
        if "record" in rule:
            level, by = {
                "teams": ("team:", "(cluster, team)"),
                "workloads": ("workload:", "(cluster, team, namespace, workload_type, workload)"),
            }[name]
            assert rule["record"].startswith(level)
            assert f" by {by}" in rule["expr"]
            continue
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"runbook_url", "summary", "description"}
        if name in KEPT:
            assert "team" not in rule["labels"]
            assert f" by {KEPT[name]}" in rule["expr"]
        else:
            assert rule["labels"]["team"] == "platform"


@every_file
def test_no_aggregation_loses_the_cluster(name):
    """One Prometheus may have several clusters with equal namespaces and teams."""
    for rule in rules(name):
        kept = re.findall(r"(?<![\w:])(?:sum|max|min|count) ?(?:by \((\w+)|\()", rule["expr"])
        kept += re.findall(r"\bon \((\w+)", rule["expr"])
        assert set(kept) <= {"cluster"}, rule["expr"]


RUNBOOKS = (ROOT / "docs/runbooks.md").read_text("utf-8")
PARTS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Needs")


@every_file
def test_every_alert_has_a_runbook(name):
    """Its URL leads to a section with meaning, impact, causes and remedies."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL))
    for rule in rules(name):
        if "alert" not in rule:
            continue
        url = rule["annotations"]["runbook_url"]
        assert re.fullmatch(r"https://\S+/docs/runbooks\.md#" + rule["alert"].lower(), url)
        text = sections[rule["alert"]]
        assert re.findall(r"^- \*\*(\w+):\*\* ", text, re.MULTILINE) == list(PARTS)
        needs = set(re.findall(r"`([a-z:]+_[a-z_:]+|up)`", text.partition("- **Needs:**")[2]))
        assert needs == metrics(rule["expr"]), rule["alert"]


def test_every_record_says_what_it_needs():
    """The table of records names exactly the metrics of each record."""
    table = RUNBOOKS.partition("## Recording rules")[2]
    shown = {
        row[1]: set(re.findall(r"`([a-z_]+)`", row[2]))
        for row in re.finditer(r"^\| `([\w:]+)` \| (.*) \|$", table, re.MULTILINE)
    }
    recorded = [rule for name in NAMES for rule in rules(name) if "record" in rule]
    assert shown == {rule["record"]: metrics(rule["expr"]) for rule in recorded}


def test_runbooks_are_for_what_there_is():
    """No section belongs to a removed alert."""
    titles = set(re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE))
    alerts = {rule["alert"] for name in NAMES for rule in rules(name) if "alert" in rule}
    assert titles == alerts


@every_file
def test_only_samples_with_a_team_count(name):
    """Every selector requires a team or a workload: samples of other jobs have none."""
    label = {"teams": "team", "kube-state-metrics": "team", "workloads": "workload"}.get(name)
    for rule in rules(name) if label else ():
        assert rule["expr"].count("{") == rule["expr"].count(f'{label}!=""}}')


def test_the_documents_name_every_alert():
    """The documents name every alert, and no other."""
    part = section("docs/prometheus.md", "Rules")
    alerts = {rule["alert"] for name in NAMES for rule in rules(name) if "alert" in rule}
    assert set(re.findall(r"`((?:Container|Pod|Kube[A-Z]|Kmproxy)\w+)`", part)) == alerts


JOINED = """
container_cpu_usage_seconds_total{container="a",namespace="web",pod="p"} 0+60x20
container_cpu_usage_seconds_total{container="a",namespace="pay",pod="q"} 0+120x20
"""
ENRICHED = JOINED.replace('"web"', '"web",team="front"').replace('"pay"', '"pay",team="back"')
OF_NAMESPACES = """
kube_namespace_labels{namespace="web",label_team="front",instance="n1"} 1+0x20
kube_namespace_labels{namespace="pay",label_team="back",instance="n1"} 1+0x20
"""
OF_TWO_NODES = (
    OF_NAMESPACES + 'kube_namespace_labels{namespace="web",label_team="front",instance="n2"} 1+0x20'
)


@pytest.mark.program("promtool")
@pytest.mark.parametrize(
    ("number", "series", "label", "answers"),
    [
        (0, JOINED + OF_NAMESPACES, "label_team", True),
        (0, JOINED + OF_TWO_NODES, "label_team", False),
        (1, ENRICHED, "team", True),
        (3, JOINED + OF_NAMESPACES, "label_team", True),
        (3, JOINED + OF_TWO_NODES, "label_team", True),
    ],
)
def test_the_joins_of_the_documents(number, series, label, answers, tmp_path):
    """The queries with and without a join agree; of two nodes, the right one is taken."""
    queries = [
        each.text for each in blocks("docs/coming-from-joins.md") if each.language == "promql"
    ]
    pairs = [line.rpartition(" ") for line in series.splitlines() if line]
    expected = [
        {"labels": f'{{{label}="front"}}', "value": 1},
        {"labels": f'{{{label}="back"}}', "value": 2},
    ]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, _, values in pairs],
        "promql_expr_test": [
            {"expr": queries[number], "eval_time": "10m", "exp_samples": expected}
        ],
    }
    (tmp_path / "joins.test.yaml").write_text(yaml.safe_dump({"tests": [case]}), "utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "joins.test.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is answers, done.stdout + done.stderr
    assert answers or "many-to-many" in done.stdout + done.stderr


@every_file
def test_the_operator_gets_the_same_rules(name):
    """The PrometheusRule equals the file, as `make manifests` writes it."""
    file = (COMPONENTS / f"rules/{name}.rules.yaml").read_text("utf-8")
    document = yaml.safe_load((COMPONENTS / f"prometheusrule/{name}.yaml").read_text("utf-8"))
    assert document.pop("spec") == yaml.safe_load(file)
    assert document == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"kmproxy-{name}",
            "namespace": "kmproxy-system",
            "labels": {"app.kubernetes.io/name": "kmproxy"},
        },
    }


@pytest.mark.program("make")
def test_make_manifests_writes_them(tmp_path):
    """`make manifests` writes the committed bytes."""
    for component in ("rules", "prometheusrule"):
        (tmp_path / "manifests/components" / component).mkdir(parents=True)
    for name in NAMES:
        source = COMPONENTS / f"rules/{name}.rules.yaml"
        target = tmp_path / f"manifests/components/rules/{name}.rules.yaml"
        target.write_bytes(source.read_bytes())
    command = ["make", "-s", "-C", tmp_path, "-f", ROOT / "Makefile", "manifests"]
    subprocess.run(command, check=True)
    for name in NAMES:
        written = tmp_path / f"manifests/components/prometheusrule/{name}.yaml"
        assert written.read_bytes() == (COMPONENTS / f"prometheusrule/{name}.yaml").read_bytes()
    subprocess.run([*command, "RUNBOOKS=https://wiki.example.com/kmproxy"], check=True)
    for name in {each for each in NAMES if any("alert" in rule for rule in rules(each))}:
        for folder, end in (("rules", ".rules.yaml"), ("prometheusrule", ".yaml")):
            text = (tmp_path / f"manifests/components/{folder}/{name}{end}").read_text("utf-8")
            assert set(re.findall(r"runbook_url: (.*)#", text)) == {
                "https://wiki.example.com/kmproxy"
            }
