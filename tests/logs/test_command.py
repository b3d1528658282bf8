"""`kmproxy logs` as a process: each line once, under the team of the moment."""

import asyncio
import json
import signal

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.logs import SimLogs
from tests.support.loki import Loki, arguments, run, shipping, until


@pytest.fixture
async def cluster():
    """A cluster whose daemon may read logs."""
    async with SimCluster(["node-a"], {"shop": {"team": "red"}}) as made:
        made.api.allow("get", "nodes/log")
        yield made


@pytest.fixture
def logs(cluster, tmp_path):
    """The log files of node-a."""
    with SimLogs(tmp_path / "log") as made:
        cluster.kubelets["node-a"].logs = made
        yield made


@pytest.fixture
async def loki():
    """A push endpoint."""
    made = Loki()
    await made.start()
    yield made
    await made.stop()


async def test_a_line_and_its_labels(cluster, logs, loki, tmp_path):
    """The stream has the namespace's labels, the metadata the pod's names."""
    app = logs.start("shop", "web-0").containers["app"]
    stamp = app.write("hello", "stderr")
    async with shipping(*arguments(cluster, tmp_path, loki)):
        await loki.has("hello")
    (entry,) = loki.entries
    assert entry.stream == {
        "namespace": "shop", "container": "app", "stream": "stderr", "team": "red",
    }  # fmt: skip
    assert entry.metadata == {"pod": "web-0", "node": "node-a", "instance": "0"}
    assert entry.time == stamp


async def test_a_namespace_that_moves(cluster, logs, loki, tmp_path):
    """Lines before the move have the old team, lines after it the new one, and none comes twice."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*arguments(cluster, tmp_path, loki)):
        for number in range(50):
            app.write(f"before {number}")
        await loki.has("before 49")
        cluster.api.namespaces.apply("shop", {"team": "blue"})
        app.write("in between")
        await loki.has("in between")
        for number in range(50):
            app.write(f"after {number}")
        await loki.has("after 49")
    teams = {entry.text: entry.stream["team"] for entry in loki.entries}
    assert len(loki.entries) == 101
    assert loki.repeated() == {}
    assert {team for text, team in teams.items() if text.startswith("before")} == {"red"}
    assert {team for text, team in teams.items() if text.startswith("after")} == {"blue"}


async def test_rotations_and_restarts(cluster, logs, loki, tmp_path):
    """Files are rotated and containers restart: each line once, in the container's order."""
    pod = logs.start("shop", "web-0", ["app", "sidecar"], init=["prepare"])
    pod.containers["prepare"].write("prepared")
    pod.containers["prepare"].stop()
    app = pod.containers["app"]
    wanted = ["prepared"]
    async with shipping(*arguments(cluster, tmp_path, loki)):
        for turn in range(4):
            for number in range(20):
                app.write(f"turn {turn} line {number}")
                wanted.append(f"turn {turn} line {number}")
            await loki.has(wanted[-1])
            renamed = app.rotate(reopen=False)
            app.write(f"late {turn}")
            wanted.append(f"late {turn}")
            app.reopen()
            assert renamed.exists()
        app.restart()
        app.write(b"x" * 40_000)
        wanted.append("x" * 40_000)
        await loki.has(*wanted)
    assert loki.repeated() == {}
    assert sorted(loki.texts) == sorted(wanted)
    assert [each for each in loki.texts if each != "prepared"] == wanted[1:]


async def test_a_pod_that_is_deleted(cluster, logs, loki, tmp_path):
    """Its last lines are read before its files go."""
    pod = logs.start("shop", "web-0")
    app = pod.containers["app"]
    async with shipping(*arguments(cluster, tmp_path, loki)):
        app.write("first")
        await loki.has("first")
        logs.delete(pod)
        app.write("last")
        app.stop()
        await loki.has("last")
        logs.remove(pod)
    assert loki.texts == ["first", "last"]


async def test_the_endpoint_is_away(cluster, logs, loki, tmp_path):
    """Pushes that fail or find nobody are tried again; nothing is lost or repeated."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*arguments(cluster, tmp_path, loki)):
        app.write("one")
        await loki.has("one")
        loki.status = 503
        app.write("two")
        pushes = loki.pushes
        await until(lambda: loki.pushes > pushes)
        await loki.stop()
        app.write("three")
        await _moment()
        loki.status = 204
        await loki.start()
        await loki.has("two", "three")
    assert loki.texts == ["one", "two", "three"]


async def _moment():
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_us(cluster, logs, loki, tmp_path, how):
    """After SIGTERM nothing comes twice, after a kill at most the batch under way."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = arguments(cluster, tmp_path, loki)
    written = []
    async with shipping(environment, flags) as (process, _):
        for number in range(200):
            app.write(f"line {number}")
            written.append(f"line {number}")
        await loki.has("line 199")
        app.write("during")
        written.append("during")
        process.send_signal(how)
        await process.wait()
    last = loki.stored[-1]
    for number in range(200, 210):
        app.write(f"line {number}")
        written.append(f"line {number}")
    async with shipping(environment, flags):
        await loki.has(*written)
        app.write("end")
        await loki.has("end")
    assert set(loki.texts) == {*written, "end"}
    if how == signal.SIGTERM:
        assert process.returncode == 0
        assert loki.repeated() == {}
    else:
        assert set(loki.repeated()) <= last
        assert set(loki.repeated().values()) <= {2}


async def test_a_kill_between_the_answer_and_the_position(cluster, logs, loki, tmp_path):
    """At most the last unacknowledged batch comes twice."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = arguments(cluster, tmp_path, loki)
    async with shipping(environment, flags) as (process, _):
        app.write("first")
        await loki.has("first")
        app.write("second")
        await loki.has("second")
        process.kill()
        await process.wait()
    assert loki.stored[-1] == {"second"}
    async with shipping(environment, flags):
        app.write("third")
        await loki.has("third")
    assert "first" not in loki.repeated()
    assert set(loki.texts) == {"first", "second", "third"}


async def test_the_page_and_the_targets(cluster, logs, loki, tmp_path):
    """Both show the container; the telemetry port names none."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*arguments(cluster, tmp_path, loki)) as (_, (page, telemetry)):
        app.write("hello")
        await loki.has("hello")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{page}/targets") as response:
                (target,) = await response.json()
            async with session.get(f"http://127.0.0.1:{page}/") as response:
                text = await response.text()
            async with session.get(f"http://127.0.0.1:{telemetry}/readyz") as response:
                assert response.status == 200
            async with session.get(f"http://127.0.0.1:{telemetry}/metrics") as response:
                metrics = await response.text()
    assert target["container"] == "app"
    assert target["labels"] == {"namespace": "shop", "container": "app", "team": "red"}
    assert target["last_error"] is None
    assert "shop/web-0/app" in text
    assert "shop" not in metrics
    assert "kmproxy_log_lines_sent_total 1.0" in metrics
    assert "kmproxy_log_lines_read_total 1.0" in metrics


async def test_tenants(cluster, logs, loki, tmp_path):
    """A stream's tenant is its label's value, or what the map says."""
    cluster.api.namespaces.apply("bank", {"team": "gold"})
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"tenants": {"gold": "tenant-1"}, "tenant-label": "team"}))
    logs.start("shop", "web-0").containers["app"].write("of red")
    logs.start("bank", "web-0").containers["app"].write("of gold")
    environment, flags = arguments(cluster, tmp_path, loki)
    async with shipping(environment, [*flags, f"--config={config}"]):
        await loki.has("of red", "of gold")
    found = {entry.text: entry.tenant for entry in loki.entries}
    assert found == {"of red": "red", "of gold": "tenant-1"}


async def test_labels_of_pods(cluster, logs, loki, tmp_path):
    """With --stream-label they are labels of the stream, otherwise metadata."""
    pod = logs.start("shop", "web-0", labels={"app": "web", "tier": "front"})
    pod.containers["app"].write("hello")
    environment, flags = arguments(cluster, tmp_path, loki)
    flags += ["--workload", "--pod-label=app", "--pod-label=tier"]
    flags += ["--stream-label=namespace", "--stream-label=app"]
    async with shipping(environment, flags):
        await loki.has("hello")
    (entry,) = loki.entries
    assert entry.stream == {"namespace": "shop", "app": "web", "team": "red"}
    assert entry.metadata == {
        "container": "app", "stream": "stdout", "pod": "web-0", "node": "node-a", "instance": "0",
        "tier": "front", "workload": "web-0", "workload_type": "barepod",
    }  # fmt: skip


async def test_the_selection(cluster, logs, loki, tmp_path):
    """Globs of namespaces and containers decide whose logs are read."""
    logs.start("shop", "web-0", ["app", "istio-proxy"])
    for name, container in logs.pods[0].containers.items():
        container.write(f"of {name}")
    logs.start("kube-system", "dns").containers["app"].write("of dns")
    environment, flags = arguments(cluster, tmp_path, loki)
    flags += ["--exclude-namespace=kube-*", "--exclude-container=istio-*"]
    async with shipping(environment, flags):
        await loki.has("of app")
        logs.pods[0].containers["app"].write("end")
        await loki.has("end")
    assert loki.texts == ["of app", "end"]


async def test_what_is_missing_is_said(cluster, logs, loki, tmp_path):
    """Without a permission the line names it, and reading goes on once it is granted."""
    cluster.api.deny("get", "nodes/log")
    app = logs.start("shop", "web-0").containers["app"]
    app.write("hello")
    async with shipping(*arguments(cluster, tmp_path, loki)) as (process, _):
        while not any("resources [nodes/log]" in line for line in process.said):
            await _moment()
        cluster.api.allow("get", "nodes/log")
        await loki.has("hello")


async def test_a_kubelet_that_serves_no_logs(cluster, logs, loki, tmp_path):
    """It is said once, plainly."""
    cluster.kubelets["node-a"].serves_logs = False
    logs.start("shop", "web-0")
    async with shipping(*arguments(cluster, tmp_path, loki)) as (process, _):
        while not (found := [line for line in process.said if "serves no logs" in line]):
            await _moment()
    assert len(found) == 1
    assert "enableSystemLogHandler" in found[0]


async def test_no_push_endpoint(cluster, logs, loki, tmp_path):
    """404: one line that names the usual path, and exit 2."""
    environment, flags = arguments(cluster, tmp_path, loki)
    status, said = await run(environment, [*flags, f"--loki-url={loki.url}/x"])
    assert status == 2
    assert said.count("\n") == 1
    assert "its path usually is /loki/api/v1/push" in said


async def test_unwritable_positions(cluster, logs, loki, tmp_path):
    """One line, and exit 2."""
    environment, flags = arguments(cluster, tmp_path, loki)
    status, said = await run(environment, [*flags, f"--positions={tmp_path}/none/p.json"])
    assert status == 2
    assert "cannot be written" in said


async def test_damaged_positions(cluster, logs, loki, tmp_path):
    """They are refused; with --positions-damaged=begin reading begins anew."""
    environment, flags = arguments(cluster, tmp_path, loki)
    (tmp_path / "positions.json").write_text("x")
    (tmp_path / "positions.json").chmod(0o600)
    status, said = await run(environment, flags)
    assert status == 2
    assert "--positions-damaged=begin" in said
    app = logs.start("shop", "web-0").containers["app"]
    app.write("hello")
    async with shipping(environment, [*flags, "--positions-damaged=begin"]) as (process, _):
        await loki.has("hello")
        assert any("begins anew" in line for line in process.said)
