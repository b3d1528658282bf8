"""The documented commands run as written but for addresses, and print the documented output."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kmproxy
from kmproxy.cli.read import read_config
from tests.conftest import until
from tests.support.demo import demo
from tests.support.documents import PAGES, README, ROOT, block


async def run(commands, directory, **environment):
    """The output of commands that a shell runs in a directory."""
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
    """A scrape with the documented sample, a changed label, another scrape."""
    look = block("curl -s http://localhost:8080/metrics/cadvisor | grep 'team=\"'")
    move = block("kubectl --server=http://localhost:8001 label")
    sample = block('container_cpu_usage_seconds_total{container="api"')
    printed = block("kmproxy demo: 2 nodes")
    async with demo() as (text, _):
        assert there(printed, text) in text
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
async def test_labels_without_a_daemon(tmp_path):
    """The output of kubectl and an exposition give an enriched exposition, from a bare checkout."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    async with demo() as (text, _):
        commands = block("$ kubectl --server=http://localhost:8001 get namespaces")
        await run(there(commands, text).replace("$ ", ""), tmp_path)
    enriched = (tmp_path / "enriched.prom").read_text("utf-8")
    assert 'namespace="payments",team="payments"' in enriched
    given = (tmp_path / "cadvisor.prom").read_text("utf-8")
    assert re.sub(r',team="[a-z]+"', "", enriched) == given


@pytest.mark.program("curl")
async def test_targets(tmp_path):
    """A pod's target as documented: its address, and its labels in order."""
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
    """Only the CPU samples of one namespace."""
    narrow = block("curl -s 'http://localhost:8080/metrics/cadvisor?namespace=payments")
    async with demo() as (text, _):
        lines = (await run(there(narrow, text), tmp_path)).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    for line in samples:
        assert line.startswith("container_cpu_")
        assert 'namespace="payments",team="payments"' in line


def test_the_values_of_the_stack():
    """The documented values turn the chart's cAdvisor endpoint off."""
    values = yaml.safe_load(block("kubelet:\n  serviceMonitor:"))
    assert values == {"kubelet": {"serviceMonitor": {"cAdvisor": False}}}


def test_make_builds_and_pushes_the_image():
    """The image's name reaches docker in both; `deploy` is shown in `test_make_deploy`."""
    command = block("make docker-build docker-push").splitlines()[0]
    shown = subprocess.run(
        command.replace("make", "make -n"),
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    image = f"registry.example.com/kmproxy:{kmproxy.__version__}"
    assert shown.stdout.splitlines()[-1] == f"docker push {image}"
    (built,) = re.findall(
        r"^docker build --build-arg REVISION=(\S*) --build-arg VERSION=(\S+) "
        r"--build-arg CREATED=\S* (.*)$",
        shown.stdout,
        re.MULTILINE,
    )
    assert built[1:] == (kmproxy.__version__, f"--tag {image} .")
    known = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built[0].removesuffix("-dirty") == known.stdout[:12]


def test_arguments_of_kubelet_meta_proxy():
    """The arguments of its example are accepted, with values of the downward API."""
    arguments = yaml.safe_load(block("args:\n"))["args"]
    values = {"$(KUBE_APISERVER)": "10.0.0.1", "$(NODE_NAME)": "node-1"}
    given = [re.sub(r"\$\(\w+\)", lambda name: values[name[0]], each) for each in arguments]
    config, warnings = read_config(given)
    assert (config.kubelet.apiserver, config.kubelet.port) == ("10.0.0.1", 443)
    assert (config.kubelet.node, config.server.listen.port) == ("node-1", 8080)
    assert warnings == []


def test_one_file():
    """The documented command tests one file, and pytest prints the documented lines."""
    shown = block("collected ")
    command = re.search(r"`(make test ARGS=\S+ COVERAGE=)`", PAGES[README])[1]
    made = subprocess.run(
        command.replace("make", "make -n"),
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (file,) = re.findall(r"^tests/\S+", shown, re.MULTILINE)
    assert made.stdout.splitlines()[-1].split()[1:] == ["--durations=15", file]
    assert re.search(rf"^collected \d+ items\n\n{re.escape(file)} \.+ +\[ *\d+%\]\n", shown)
    assert re.search(r"^=+ \d+ passed in [\d.]+s =+$", shown, re.MULTILINE)


def test_make_e2e():
    """It runs pytest with the marker e2e, and the documents show every file."""
    shown = subprocess.run(
        ["make", "-n", "e2e"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1].strip().endswith('/pytest -m "e2e or cluster"')
    files = re.findall(r"^(tests/\S+\.py) \.+(?: |$)", block("tests/cluster/"), re.MULTILINE)
    there = [*ROOT.glob("tests/cluster/test_*.py"), *ROOT.glob("tests/e2e/test_*.py")]
    assert files == [str(path.relative_to(ROOT)) for path in sorted(there)]
