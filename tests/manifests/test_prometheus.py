"""The Prometheus and Alertmanager files: they load, and follow the rules of honest labels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.documents import block

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "manifests/prometheus").glob("*.yml"))
ALERTMANAGER = ROOT / "manifests/alertmanager/alertmanager.yml"

# What a scrape through kmproxy is recognised by; `http-sd` scrapes applications, not kmproxy.
ENRICHED = {
    "beside": "kmproxy",
    "instead": "kubelet-cadvisor",
    "central": "kubernetes-cadvisor",
    "discovery-annotations": "kubernetes-service-endpoints",
}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_wiring = pytest.mark.parametrize("name", ENRICHED)


def job(name):
    """The scrape job for enriched metrics."""
    document = yaml.safe_load((ROOT / f"manifests/prometheus/{name}.yml").read_text("utf-8"))
    (found,) = [each for each in document["scrape_configs"] if each["job_name"] == ENRICHED[name]]
    return found


@pytest.mark.program("promtool")
@every_file
def test_prometheus_loads_it(path, tmp_path):
    """The whole file loads, or all of it but Kubernetes discovery, if that is not compiled in."""
    document = yaml.safe_load(path.read_text("utf-8"))
    shown = check(path)
    if "kubernetes_sd_configs not found" in shown.stderr:
        for each in document["scrape_configs"]:
            for discovery in each.pop("kubernetes_sd_configs", ()):
                assert set(discovery) <= {"role", "namespaces"}
                assert discovery["role"] in {"node", "pod", "endpoints"}
                assert set(discovery.get("namespaces", {})) <= {"names"}
        without = tmp_path / "prometheus.yml"
        without.write_text(yaml.safe_dump(document), "utf-8")
        shown = check(without)
    assert shown.returncode == 0, shown.stderr


def check(path):
    """Runs promtool on a configuration."""
    return subprocess.run(
        ["promtool", "check", "config", path], capture_output=True, text=True, check=False
    )


@pytest.mark.program("promtool")
@every_wiring
def test_the_lines_for_tls_of_the_documents(name, tmp_path):
    """With these lines the job loads. The token file is not read then."""
    lines = yaml.safe_load(block("scheme: https\n"))
    (tmp_path / "ca.crt").write_text("")
    lines["tls_config"]["ca_file"] = str(tmp_path / "ca.crt")
    lines["authorization"]["credentials_file"] = str(tmp_path / "ca.crt")
    secured = {**job(name), **lines}
    secured.pop("kubernetes_sd_configs")
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [secured]}), "utf-8")
    shown = check(file)
    assert shown.returncode == 0, shown.stderr


@every_wiring
def test_the_samples_own_labels_are_honoured(name):
    """Otherwise kmproxy's namespace and pod would replace every sample's own."""
    assert job(name)["honor_labels"] is True


@every_wiring
def test_no_series_lives_on_under_its_old_team(name):
    """With honor_timestamps off, a series ends with its last scrape, in every version."""
    assert job(name)["honor_timestamps"] is False


@every_wiring
def test_no_target_lends_its_namespace_to_samples_that_have_none(name):
    """With honor_labels, a target's label would go to samples without it."""
    targets = {each.get("target_label") for each in job(name)["relabel_configs"]}
    assert not targets & {"namespace", "pod", "container"}


@every_file
def test_rules_and_alertmanager_are_named(path):
    """Each file is complete: rules are loaded, and alerts have a receiver."""
    document = yaml.safe_load(path.read_text("utf-8"))
    assert document["rule_files"] == ["rules/*.rules.yaml"]
    (alertmanager,) = document["alerting"]["alertmanagers"]
    assert alertmanager == {"static_configs": [{"targets": ["alertmanager.monitoring.svc:9093"]}]}


@pytest.mark.program("amtool")
def test_alertmanager_loads_it():
    """The routing tree loads, with every receiver that it names."""
    done = subprocess.run(
        ["amtool", "check-config", ALERTMANAGER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.program("amtool")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["team=frontend"], "frontend-team"),
        (["team=backend", "namespace=frontend-service2"], "backend-team"),
        (["team=payments", "severity=critical"], "payments-team"),
        (["team=platform"], "platform-team"),
        (["team=unheard-of"], "platform-team"),
        (["namespace=no-team"], "platform-team"),
    ],
)
def test_who_gets_an_alert(labels, receiver):
    """The alert's team gets it, and no other; without a team the cluster's own team."""
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [receiver]
