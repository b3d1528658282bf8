"""The README's commands, run as they are written but for addresses; what they print is shown."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from .conftest import until
from .test_demo import demo

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


async def run(commands, directory, **environment):
    """What commands print, which a shell runs in a directory."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", commands,
        cwd=directory, env=os.environ | {"PATH": beside} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


def there(commands, text):
    """Commands with the addresses of the demo that printed `text`."""
    metrics = re.search(r"curl -s http://(localhost:\d+)/metrics/cadvisor", text)[1]
    api = re.search(r"--server=http://(localhost:\d+)", text)[1]
    return commands.replace("localhost:8080", metrics).replace("localhost:8001", api)


@pytest.mark.program("curl", "kubectl")
async def test_try_it(tmp_path):
    """A look, the sample that is shown, a move, another look."""
    look = block("curl -s http://localhost:8080/metrics/cadvisor | grep 'team=\"'")
    move = block("kubectl --server=http://localhost:8001 label")
    sample = block('container_cpu_usage_seconds_total{container="api"')
    async with demo() as (text, _):
        before = (await run(there(look, text), tmp_path)).splitlines()
        assert all('team="' in line for line in before)
        alike = [line for line in before if line.startswith(sample[: sample.index(",")])]
        assert {part for line in alike for part in re.findall(r',(\w+="[a-z0-9-]+")', line)} > {
            'cpu="total"',
            'namespace="frontend-service2"',
            'team="frontend"',
        }
        names = re.findall(r'(\w+)="', sample)
        assert [re.findall(r'(\w+)="', line) for line in alike] == [names] * len(alike)
        moved = await run(there(move, text), tmp_path)
        assert moved == "namespace/frontend-service2 labeled\n"

        async def follows():
            lines = (await run(there(look, text), tmp_path)).splitlines()
            mine = [line for line in lines if 'namespace="frontend-service2"' in line]
            return mine and all('team="backend"' in line for line in mine)

        await until(follows, 20)


@pytest.mark.program("kubectl")
async def test_labels_without_a_daemon(cluster, tmp_path):
    """What kubectl prints and an exposition, to an enriched exposition."""
    cluster.write_kubeconfig(tmp_path / "config")
    text = cluster.kubelets["node-a"].metrics.text("/metrics/cadvisor", time.time())
    (tmp_path / "cadvisor.prom").write_bytes(text)
    commands = block("$ kubectl get namespaces -o json").replace("$ ", "")
    await run(commands, tmp_path, KUBECONFIG=str(tmp_path / "config"))
    enriched = (tmp_path / "enriched.prom").read_text("utf-8")
    assert 'namespace="payments",team="payments"' in enriched
    assert re.sub(r',team="[a-z]+"', "", enriched) == text.decode()


@pytest.mark.program("curl")
async def test_targets(tmp_path):
    """A pod's target as it is shown: its address, and the labels in their order."""
    ask = block("curl -s http://localhost:8080/sd/pods")
    shown = block('{"targets":["10.244.')
    async with demo() as (text, _):
        line = await run(there(ask, text), tmp_path)
    names = re.findall(r'"(\w+)":', line)
    assert {"team", "__meta_kubernetes_namespace_label_team"} < set(names)
    places = [names.index(name) for name in re.findall(r'"(\w+)":', shown)]
    assert places == sorted(places)


@pytest.mark.program("curl")
async def test_a_request_narrows(tmp_path):
    """One namespace's CPU, and nothing else."""
    narrow = block("curl -s 'http://localhost:8080/metrics/cadvisor?namespace=payments")
    async with demo() as (text, _):
        lines = (await run(there(narrow, text), tmp_path)).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    for line in samples:
        assert line.startswith("container_cpu_")
        assert 'namespace="payments",team="payments"' in line


def test_the_values_of_the_stack():
    """The chart's switch of the kubelet's cAdvisor endpoint, off."""
    values = yaml.safe_load(block("kubelet:\n  serviceMonitor:"))
    assert values == {"kubelet": {"serviceMonitor": {"cAdvisor": False}}}


def test_make_builds_and_pushes_the_image():
    """The image's name reaches docker in both; `deploy` is shown in `test_manifests`."""
    command = block("make docker-build docker-push").splitlines()[0]
    shown = subprocess.run(
        command.replace("make", "make -n"),
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    image = "registry.example.com/kmproxy:0.1.0"
    assert shown.stdout.splitlines()[-1] == f"docker push {image}"
    assert f"docker build --tag {image} ." in shown.stdout


def test_make_e2e():
    """It is pytest with the marker of the proof; every file of that is in what is shown."""
    shown = subprocess.run(
        ["make", "-n", "e2e"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1].strip().endswith("/pytest -m e2e")
    files = re.findall(r"^tests/(\w+\.py) \.+ ", block("tests/test_e2e_"), re.MULTILINE)
    assert files == sorted(path.name for path in (ROOT / "tests").glob("test_e2e_*.py"))


# What runs each of the README's blocks: a test, or a script of .ci; by how the block begins.
RUN_BY = {
    "make run\n": ".ci/demo",
    "curl -s http://localhost:8080/metrics/cadvisor | grep": "test_examples.test_try_it",
    'container_cpu_usage_seconds_total{container="api"': "test_examples.test_try_it",
    "kubectl --server=http://localhost:8001 label": "test_examples.test_try_it",
    "$ kubectl get namespaces -o json": "test_examples.test_labels_without_a_daemon",
    "make docker-build docker-push": "test_examples.test_make_builds_and_pushes_the_image",
    "apiVersion: kustomize": "test_manifests.test_the_example_of_a_component",
    "openssl req ": "test_manifests.test_the_example_of_a_certificate",
    "scheme: https\n": "test_prometheus.test_the_readmes_lines_for_tls",
    "tls_server_config:": "test_readme.test_the_web_config_example",
    "$ kubectl exec -n kmproxy-system": "test_check.test_as_a_command",
    "✓ identity": "test_check.test_the_example_of_the_readme",
    "kubelet:\n  serviceMonitor:": "test_examples.test_the_values_of_the_stack",
    "tls_server_config:": "test_e2e_secure.test_the_web_config_of_the_readme",
    "kubelet:\n  oauth2:": "test_readme.test_kubelet_access",
    "label: [team,": "test_readme.test_the_yaml_example",
    "curl -s 'http://localhost:8080/metrics/cadvisor?namespace=": "test_examples.test_a_request_narrows",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-reviews": "test_door.test_the_roles_of_the_readme",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-scrape": "test_door.test_the_roles_of_the_readme",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-tenant": "test_tenants.test_the_roles_of_the_readme",
    "user 'system:serviceaccount:monitoring:prometheus' may not": "test_door.test_the_refusal_of_the_readme",
    "curl -s http://localhost:8080/sd/pods": "test_examples.test_targets",
    '{"targets":["10.244.': "test_examples.test_targets",
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
