"""`kmproxy logs --source api` as a process: each line once, through the API server."""

import json
import signal

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.logs import SimLogs
from tests.support.loki import Loki, arguments, run, shipping, until


@pytest.fixture
async def cluster():
    """A cluster whose daemon may read logs through the API server, and no log files."""
    async with SimCluster(["node-a"], {"shop": {"team": "red"}}, pods_per_namespace=0) as made:
        for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
            made.api.allow(verb, resource)
        for each in made.kubelets.values():
            await each.stop()
        yield made


@pytest.fixture
def logs(cluster, tmp_path):
    """The log files of node-a."""
    with SimLogs(tmp_path / "log") as made:
        cluster.show_logs("node-a", made)
        yield made


@pytest.fixture
async def loki():
    """A push endpoint."""
    made = Loki()
    await made.start()
    yield made
    await made.stop()


def through_api(cluster, directory, loki):
    """The environment and the command line, without a node."""
    environment, flags = arguments(cluster, directory, loki)
    kept = [each for each in flags if not each.startswith("--node-")]
    return environment, [*kept, "--source=api"]


async def got(port, path):
    """The text of one answer."""
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def test_a_line_and_its_labels(cluster, logs, loki, tmp_path):
    """The stream has no label `stream`: the API does not tell stdout from stderr."""
    app = logs.start("shop", "web-0", labels={"app": "web"}).containers["app"]
    environment, flags = through_api(cluster, tmp_path, loki)
    flags += ["--pod-label=app", "--workload"]
    async with shipping(environment, flags):
        stamp = app.write("hello", "stderr")
        await loki.has("hello")
    (entry,) = loki.entries
    assert entry.stream == {"namespace": "shop", "container": "app", "team": "red"}
    assert entry.metadata == {
        "pod": "web-0", "node": "node-a", "instance": "0", "app": "web",
        "workload": "web-0", "workload_type": "barepod",
    }  # fmt: skip
    assert entry.time == stamp


async def test_a_namespace_that_moves(cluster, logs, loki, tmp_path):
    """Lines before the move have the old team, lines after it the new one, and none comes twice."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*through_api(cluster, tmp_path, loki)):
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
    assert {team for text, team in teams.items() if text.startswith("before")} == {"red"}
    assert {team for text, team in teams.items() if text.startswith("after")} == {"blue"}


async def test_a_crash_of_the_container(cluster, logs, loki, tmp_path):
    """The last lines of the instance before are read, and each line has its instance."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*through_api(cluster, tmp_path, loki)):
        for turn in range(4):
            app.write(f"begin {turn}")
            await loki.has(f"begin {turn}")
            app.write(f"end {turn}")
            app.restart()
        app.write("x" * 40_000)
        await loki.has("end 3", "x" * 40_000)
    assert loki.repeated() == {}
    assert len(loki.entries) == 9
    found = {each.text: each.metadata["instance"] for each in loki.entries}
    assert [found[f"end {turn}"] for turn in range(4)] == ["0", "1", "2", "3"]


async def test_connections_that_end(cluster, logs, loki, tmp_path):
    """Followers end, as after 4 hours: nothing is repeated or lost, also within one second."""
    app = logs.start("shop", "web-0").containers["app"]
    wanted = []
    async with shipping(*through_api(cluster, tmp_path, loki)):
        for turn in range(4):
            for number in range(30):
                app.write(f"{turn} {number}")
                app.write("same")
                wanted += [f"{turn} {number}", "same"]
            cluster.api.pod_logs.end_all()
            await loki.has(f"{turn} 29")
        app.write("end")
        await loki.has("end")
    assert sorted(loki.texts) == sorted([*wanted, "end"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_us(cluster, logs, loki, tmp_path, how):
    """After SIGTERM nothing comes twice, after a kill at most the last push. Nothing is lost."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = through_api(cluster, tmp_path, loki)
    written = []

    def write(begin, end):
        for number in range(begin, end):
            app.write(f"line {number}")
            written.append(f"line {number}")

    async with shipping(environment, flags) as (process, _):
        write(0, 200)
        await loki.has("line 199")
        write(200, 205)
        process.send_signal(how)
        await process.wait()
    last = loki.stored[-1]
    write(205, 210)
    app.restart()
    write(210, 215)
    async with shipping(environment, flags):
        await loki.has(*written)
        app.write("end")
        await loki.has("end")
    assert set(loki.texts) == {*written, "end"}
    if how == signal.SIGTERM:
        assert loki.repeated() == {}
    else:
        assert set(loki.repeated()) <= last
        assert set(loki.repeated().values()) <= {2}


async def test_pods_that_come_and_go(cluster, logs, loki, tmp_path):
    """A new pod of the same name has its own log; a deleted one is read to its end."""
    first = logs.start("shop", "web-0")
    async with shipping(*through_api(cluster, tmp_path, loki)) as (_, (page, _)):
        first.containers["app"].write("of the first")
        await loki.has("of the first")
        logs.delete(first)
        first.containers["app"].write("its last")
        first.containers["app"].stop()
        await loki.has("its last")
        logs.remove(first)
        logs.start("shop", "web-0").containers["app"].write("of the second")
        await loki.has("of the second")
        targets = json.loads(await got(page, "/targets"))
    assert loki.texts == ["of the first", "its last", "of the second"]
    assert targets[-1]["position"]["type"] == "api"


async def test_the_endpoint_is_away(cluster, logs, loki, tmp_path):
    """Reading waits when the buffer is full: the socket is not read, and nothing is lost."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = through_api(cluster, tmp_path, loki)
    flags += ["--max-buffer-bytes=1MiB", "--batch-bytes=512KiB"]
    async with shipping(environment, flags) as (_, (_, telemetry)):
        app.write("first")
        await loki.has("first")
        loki.status = 503
        text = "x" * 1000
        for number in range(6000):
            app.write(f"{number} {text}")
        pushes = loki.pushes
        await until(lambda: loki.pushes > pushes + 1)
        shown = await got(telemetry, "/metrics")
        (held,) = [each for each in shown.splitlines() if each.startswith("kmproxy_log_buffer_by")]
        assert float(held.split()[1]) < 3 << 20
        loki.status = 204
        await loki.has(*(f"{number} {text}" for number in range(6000)))
    assert loki.repeated() == {}


async def test_a_node_and_namespaces(cluster, logs, loki, tmp_path):
    """The API server is asked for these pods only."""
    cluster.api.namespaces.apply("blog", {"team": "green"})
    for namespace in ("shop", "blog"):
        logs.start(namespace, "web-0").containers["app"].write(f"of {namespace}")
    environment, flags = through_api(cluster, tmp_path, loki)
    async with shipping(environment, [*flags, "--namespace=shop", "--node-name-or-ip=node-a"]):
        await loki.has("of shop")
    assert loki.texts == ["of shop"]
    asked = [each.path for each in cluster.api.requests if "fieldSelector" in each.path]
    assert asked
    assert all(each.startswith("/api/v1/namespaces/shop/pods?") for each in asked)
    assert all("spec.nodeName%3Dnode-a" in each or "spec.nodeName=node-a" in each for each in asked)


async def test_shards(cluster, logs, loki, tmp_path):
    """Two processes share the pods: each line comes from exactly one of them."""
    for number in range(8):
        logs.start("shop", f"web-{number}").containers["app"].write(f"of {number}")
    environment, flags = through_api(cluster, tmp_path, loki)
    async with shipping(environment, [*flags, "--shard=0/2"]):
        others = [*flags, "--shard=1/2", f"--positions={tmp_path}/other.json"]
        async with shipping(environment, others):
            await loki.has(*(f"of {number}" for number in range(8)))
    assert loki.repeated() == {}


@pytest.mark.parametrize(
    ("verb", "resource"), [("get", "pods/log"), ("list", "pods"), ("watch", "pods")]
)
async def test_what_is_missing_is_said(cluster, logs, loki, tmp_path, verb, resource):
    """Without a permission the line names it, and reading goes on once it is granted."""
    cluster.api.deny(verb, resource)
    async with shipping(*through_api(cluster, tmp_path, loki)) as (process, _):
        logs.start("shop", "web-0").containers["app"].write("hello")
        await until(lambda: any(f"resources [{resource}]" in line for line in process.said))
        cluster.api.allow(verb, resource)
        await loki.has("hello")


async def test_an_address_is_no_node(cluster, logs, loki, tmp_path):
    """--source=api needs the node's name: one line, exit 2."""
    environment, flags = through_api(cluster, tmp_path, loki)
    status, said = await run(environment, [*flags, "--node-name-or-ip=10.0.0.1"])
    assert status == 2
    assert "by its name" in said
