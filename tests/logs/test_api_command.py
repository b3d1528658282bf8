"""`kmproxy logs --source api` as a process: each line once, through the API server."""

import json

import pytest

from tests.support.loki import got, run, shipping, until


@pytest.fixture
def source():
    """Where the logs are read."""
    return "api"


async def test_a_line_and_its_labels(logs, loki, command):
    """The stream has no label `stream`: the API does not tell stdout from stderr."""
    app = logs.start("shop", "web-0", labels={"app": "web"}).containers["app"]
    environment, flags = command
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


async def test_a_crash_of_the_container(logs, loki, command):
    """The last lines of the instance before are read, and each line has its instance."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
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


async def test_connections_that_end(cluster, logs, loki, command):
    """Followers end, as after 4 hours: nothing is repeated or lost, also within one second."""
    app = logs.start("shop", "web-0").containers["app"]
    wanted = []
    async with shipping(*command):
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


async def test_pods_that_come_and_go(logs, loki, command):
    """A new pod of the same name has its own log; a deleted one is read to its end."""
    first = logs.start("shop", "web-0")
    async with shipping(*command) as (_, (page, _)):
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


async def test_the_endpoint_is_away(logs, loki, command):
    """Reading waits when the buffer is full: the socket is not read, and nothing is lost."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = command
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


async def test_a_node_and_namespaces(cluster, logs, loki, command):
    """The API server is asked for these pods only."""
    cluster.api.namespaces.apply("blog", {"team": "green"})
    for namespace in ("shop", "blog"):
        logs.start(namespace, "web-0").containers["app"].write(f"of {namespace}")
    environment, flags = command
    async with shipping(environment, [*flags, "--namespace=shop", "--node-name-or-ip=node-a"]):
        await loki.has("of shop")
    assert loki.texts == ["of shop"]
    asked = [each.path for each in cluster.api.requests if "fieldSelector" in each.path]
    assert asked
    assert all(each.startswith("/api/v1/namespaces/shop/pods?") for each in asked)
    assert all("spec.nodeName%3Dnode-a" in each or "spec.nodeName=node-a" in each for each in asked)


async def test_shards(logs, loki, command, tmp_path):
    """Two processes share the pods: each line comes from exactly one of them."""
    for number in range(8):
        logs.start("shop", f"web-{number}").containers["app"].write(f"of {number}")
    environment, flags = command
    async with shipping(environment, [*flags, "--shard=0/2"]):
        others = [*flags, "--shard=1/2", f"--positions={tmp_path}/other.json"]
        async with shipping(environment, others):
            await loki.has(*(f"of {number}" for number in range(8)))
    assert loki.repeated() == {}


async def test_an_address_is_no_node(logs, command):
    """--source=api needs the node's name: one line, exit 2."""
    environment, flags = command
    status, said = await run(environment, [*flags, "--node-name-or-ip=10.0.0.1"])
    assert status == 2
    assert "by its name" in said
