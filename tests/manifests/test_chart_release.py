"""A release of the chart as its user meets it: what is printed, and what is packaged."""

from __future__ import annotations

import re
import shlex
import subprocess
import tarfile

import pytest
import yaml

from tests.support.charts import (
    CHART,
    LOGS,
    METRICS,
    NOTES,
    ci_values,
    helm,
    packaged,
    parts,
    rendered,
    texts,
)
from tests.support.documents import block
from tests.support.overlays import ROOT, of_kind, pod_of, workload

pytestmark = [helm]


def commands(values):
    """The commands that Helm prints after an installation."""
    return [line.strip() for line in texts(values)[NOTES].splitlines() if line.startswith("   ")]


@pytest.mark.parametrize("way", METRICS)
def test_the_next_two_commands(way):
    """The preflight in the pod, and the metrics with the scheme and the path of these values."""
    values = ci_values(way)
    check, forward, look, *_ = commands(values)
    one = workload(parts(values)[0])
    name = f"{'ds' if one['kind'] == 'DaemonSet' else 'deploy'}/{one['metadata']['name']}"
    assert check == f"kubectl exec -n kmproxy-system {name} -- kmproxy check"
    assert forward == f"kubectl port-forward -n kmproxy-system {name} 8080 &"
    assert subprocess.run(["bash", "-nc", look], check=False).returncode == 0
    words = shlex.split(re.sub(r"\$\(.*?\)", "TOKEN", look))
    url = next(word for word in words if "://" in word)
    tls = values.get("tls", {}).get("mode", "none") != "none"
    path = "/metrics/cadvisor" if one["kind"] == "DaemonSet" else "/api/v1/nodes/NODE/proxy/metrics/cadvisor"  # fmt: skip
    assert url == f"http{'s' * tls}://localhost:8080{path}"
    token = values.get("authorization", {}).get("mode", "none") != "none"
    assert ("Authorization: Bearer TOKEN" in words) is token


@pytest.mark.parametrize("way", LOGS)
def test_the_next_commands_for_logs(way):
    """The preflight in the pod, and the lag of each container on a local port of its own."""
    values = ci_values(way)
    *before, check, forward, look = commands(values)
    assert len(before) == (3 if way in METRICS else 0)
    (one,) = of_kind(parts(values)[1], "DaemonSet", "StatefulSet")
    name = f"{'ds' if one['kind'] == 'DaemonSet' else 'sts'}/{one['metadata']['name']}"
    where = f"-n {one['metadata']['namespace']} {name}"
    assert check == f"kubectl exec {where} -- kmproxy check --logs"
    assert forward == f"kubectl port-forward {where} 8082:8080 &"
    assert look == "curl -s http://localhost:8082/targets"
    assert values["logs"]["lokiUrl"] in texts(values)[NOTES]


@pytest.mark.parametrize("way", METRICS)
def test_who_may_read_is_said(way):
    """Where everyone who reaches kmproxy can read everything, Helm says so."""
    values = ci_values(way)
    said = "Everyone who reaches port 8080 can read the metrics" in texts(values)[NOTES]
    assert said is (values.get("authorization", {}).get("mode", "none") == "none")


@pytest.mark.parametrize("way", METRICS)
def test_what_scrapes_it_is_said(way):
    """Without a monitor, Helm names the value that makes one for this way."""
    values = ci_values(way)
    advice = re.findall(r"prometheus\.\w+\.enabled", texts(values)[NOTES])
    monitors = of_kind(rendered(values), "PodMonitor", "ServiceMonitor", "ScrapeConfig")
    kind = "scrapeConfig" if values["mode"] == "central" else "podMonitor"
    assert advice == ([] if monitors else [f"prometheus.{kind}.enabled"])


def test_the_package(tmp_path):
    """It holds the rules and dashboards themselves, and renders what the folder does."""
    path, found = packaged(tmp_path)
    assert found == texts({})
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert all(archive.getmember(name).isfile() for name in names)
    assert "kmproxy/files/rules/teams.rules.yaml" in names
    assert "kmproxy/files/dashboards/kmproxy.json" in names
    assert not [name for name in names if "/ci/" in name or name.endswith("kustomization.yaml")]


@pytest.mark.program("make")
def test_make_chart(tmp_path):
    """`make chart` packages it into dist/."""
    done = subprocess.run(
        ["make", "-C", ROOT, "--dry-run", "chart"], check=True, capture_output=True, text=True
    )
    assert "helm_python" in done.stdout
    assert "dist" in done.stdout
    assert CHART.relative_to(ROOT).as_posix() in done.stdout


def test_annotations_of_artifact_hub():
    """They are what Artifact Hub reads: texts, of which the changes are YAML."""
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["annotations"]
    assert all(key.startswith("artifacthub.io/") for key in annotations)
    assert all(isinstance(value, str) for value in annotations.values())
    changes = yaml.safe_load(annotations["artifacthub.io/changes"])
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    assert {each["kind"] for each in changes} <= kinds


def test_the_documents_install_it():
    """The documented commands install this chart with values that exist, and test the release."""
    install, check = block("helm install kmproxy").replace("\\\n", " ").splitlines()
    words = shlex.split(install)
    assert words[:4] == ["helm", "install", "kmproxy", "manifests/chart"]
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    values = {}
    sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    for path, _, value in (each.partition("=") for each in sets):
        part, given = defaults, values
        *way, last = path.split(".")
        for key in way:
            part, given = part[key], given.setdefault(key, {})
        assert last in part, path
        given[last] = value
    namespace = words[words.index("--namespace") + 1]
    (one,) = {each["metadata"]["namespace"] for each in of_kind(rendered(values, namespace=namespace), "DaemonSet")}  # fmt: skip
    assert one == namespace == "kmproxy-system"
    image = pod_of(rendered(values))[1]["image"]
    assert block("make docker-build docker-push").splitlines()[0].endswith(f"IMG={image}")
    assert check == f"helm test kmproxy --namespace {namespace}"
    assert (CHART / "README.md").read_text("utf-8").count("helm install") == 1
    assert block("helm install kmproxy") in (CHART / "README.md").read_text("utf-8")
