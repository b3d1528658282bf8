"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import bcrypt
import pytest
import yaml

from kmproxy.access import KEYS
from kmproxy.config import SECTIONS
from kmproxy.loader import Layer, load
from kmproxy.settings import settings
from kmproxy.telemetry import Telemetry
from kmproxy.webconfig import Pem
from kmproxy.webfile import read_web_config

from .test_layers import ORDER, SIMULATOR

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks():
    """The README's blocks of code: what each is said to be, and its text."""
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        yield fence[1], fence[2]


def block(start):
    """The text of the only block that begins so."""
    (found,) = [text for _, text in blocks() if text.startswith(start)]
    return found


def rows():
    """The table of settings, from the settings themselves."""
    for section in SECTIONS.values():
        blank = section()
        for key, spec in settings(section).items():
            default = getattr(blank, key)
            if spec.repeatable:
                shown = ", ".join(default)
            elif spec.metavar == "DURATION" and default is not None:
                shown = f"{default:g}s"
            else:
                shown = "" if default in {None, False} else str(default)
            flag = f"--{spec.name} {spec.metavar}".rstrip().replace("|", "\\|")
            notes = ["repeatable"] if spec.repeatable else []
            notes += [f"also `--{alias}`" for alias in spec.aliases]
            text = spec.help.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")
            yield f"| `{flag}` | {f'`{shown}`' if shown else ''} | {text} |"


def test_the_table_of_settings():
    """Every setting has its row, generated from the same field as its flag."""
    table = "\n".join(rows())
    between = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", README, re.DOTALL)
    assert between[1] == table


def test_the_table_of_metrics():
    """Every metric of ours is in the README, and no other."""
    ours = set(re.findall(r"^# TYPE (kmproxy_\w+) ", Telemetry().render().decode(), re.MULTILINE))
    assert set(re.findall(r"`(kmproxy_\w+)", README)) == ours


def test_the_table_of_modules():
    """The architecture section has every module once, in the order that is enforced."""
    section = README.partition("## Architecture")[2].partition("## Develop")[0]
    cells = re.findall(r"^\|[^|]*\| (`.*?) \|", section, re.MULTILINE)
    shown = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    simulator = ("simfamilies", "simcluster")
    order = [name for name in ORDER if name not in SIMULATOR or name in simulator]
    assert shown == [name for name in order if name != "__main__"]


def test_the_yaml_example():
    """The configuration that is shown is one."""
    example = re.search(r"```yaml\n(label: .*?)```", README, re.DOTALL)[1]
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert [rule.name for rule in config.labels.rules] == ["team", "cost_center"]
    assert warnings == []


def test_kubelet_access():
    """The section that is shown is one, and every key of it has its place in the table."""
    part = README.partition("### Kubelet access")[2].partition("\n## ")[0]
    example = re.search(r"```yaml\n(.*?)```", part, re.DOTALL)[1]
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert config.access.credential.client_id == "kmproxy"
    assert config.access.tls.min_version == "TLS13"
    assert warnings == []
    for block, keys in KEYS.items():
        for key in [block, *keys] if block else keys:
            assert f"`{key}`" in part, key


def test_the_web_config_example(tmp_path):
    """It is one, with a certificate beside it, and asks for all that it seems to ask for."""
    example = re.search(r"```yaml\n(tls_server_config:.*?)```", README, re.DOTALL)[1]
    (tmp_path / "web.yaml").write_text(example)
    config = read_web_config(str(tmp_path / "web.yaml"))
    assert config.tls.certificate == Pem(str(tmp_path / "tls.crt"))
    assert config.tls.client_auth == "RequireAndVerifyClientCert"
    assert config.tls.client_sans == {"prometheus.example.com"}
    assert bcrypt.checkpw(b"example", config.users["prometheus"].encode())
    assert config.headers == (("X-Content-Type-Options", "nosniff"),)
    assert config.asks


def test_the_table_of_threats():
    """Whatever is said to be shown by a test is: the test is there."""
    table = README.partition("### Threats")[2].partition("## Performance")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    there = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(rows) > 10
    for _, threat, stops, tests in rows:
        named = re.findall(r"`(\w+)`", tests)
        assert threat.strip()
        assert stops.strip()
        assert named, threat
        assert set(named) <= there, set(named) - there


def test_the_image():
    """It runs unprivileged, and what is last removed from it are pip, apt and the shells."""
    final = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    assert "USER 65532:65532\n" in final
    assert 'ENTRYPOINT ["kmproxy"]' in final
    assert "LABEL org.opencontainers.image.revision=$REVISION\n" in final
    (run,) = re.findall(r"^RUN (.*?[^\\])\n", final, re.MULTILINE | re.DOTALL)
    for gone in ("uninstall --yes", " /usr/bin/apt*", " /usr/bin/dpkg*", " /bin/sh", " /bin/bash"):
        assert gone in run


# What runs each of the README's blocks: a test, or a script of .ci; by how the block begins.
RUN_BY = {
    "make run\n": ".ci/demo",
    "curl -s http://localhost:8080/metrics/cadvisor | grep": "test_examples.test_try_it",
    'container_cpu_usage_seconds_total{container="api"': "test_examples.test_try_it",
    "kubectl --server=http://localhost:8001 label": "test_examples.test_try_it",
    "$ kubectl --server=http://localhost:8001 get namespaces": "test_examples.test_labels_without_a_daemon",
    "make docker-build docker-push": "test_examples.test_make_builds_and_pushes_the_image",
    "apiVersion: kustomize": "test_manifests.test_the_example_of_a_component",
    "openssl req ": "test_manifests.test_the_example_of_a_certificate",
    "kubectl get secret kmproxy-tls": "test_manifests.test_the_example_of_the_ca",
    "scheme: https\n": "test_prometheus.test_the_readmes_lines_for_tls",
    "$ kubectl exec -n kmproxy-system": "test_check.test_as_a_command",
    "✓ identity": "test_check.test_the_example_of_the_readme",
    "kubelet:\n  serviceMonitor:": "test_examples.test_the_values_of_the_stack",
    "tls_server_config:": "test_e2e_secure.test_the_web_config_of_the_readme",
    "kubelet:\n  oauth2:": "test_readme.test_kubelet_access",
    "label: [team,": "test_readme.test_the_yaml_example",
    "curl -s 'http://localhost:8080/metrics/cadvisor?namespace=": "test_examples.test_a_request_narrows",
    "sum by (namespace, pod) (": "test_e2e_joins.test_a_daemonset",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-reviews": "test_door.test_the_roles_of_the_readme",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-scrape": "test_door.test_the_roles_of_the_readme",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-tenant": "test_tenants.test_the_roles_of_the_readme",
    "user 'system:serviceaccount:monitoring:prometheus' may not": "test_door.test_the_refusal_of_the_readme",
    "curl -s http://localhost:8080/sd/pods": "test_examples.test_targets",
    '{"targets":["10.244.': "test_examples.test_targets",
    "$ make load\n": "test_load.test_a_small_load",
    "make test\n": ".ci/run",
    "make e2e\n": "test_examples.test_make_e2e",
    "tests/test_e2e_": "test_examples.test_make_e2e",
}


def test_every_example_is_run():
    """Every block is run by a test, or is a file that ships; nothing else is listed."""
    shipped = {path.read_text("utf-8") for path in (ROOT / "manifests").rglob("*.y*ml")}
    listed = {start: [] for start in RUN_BY}
    unknown = []
    for _, text in blocks():
        starts = [start for start in RUN_BY if text.startswith(start)]
        for start in starts:
            listed[start].append(text)
        if not starts and "────" not in text and not any(text in whole for whole in shipped):
            unknown.append(text)
    assert unknown == []
    assert [start for start, texts in listed.items() if len(texts) != 1] == []


@pytest.mark.parametrize("runner", sorted(set(RUN_BY.values())))
def test_what_runs_an_example_exists(runner):
    """The test is there; of a script of .ci, that it says the command."""
    if runner.startswith(".ci/"):
        (command, *_) = [start.strip() for start, by in RUN_BY.items() if by == runner]
        assert command in (ROOT / runner).read_text("utf-8")
    else:
        module, _, function = runner.partition(".")
        source = (ROOT / "tests" / f"{module}.py").read_text("utf-8")
        assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE)


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - to be pasted into the README
