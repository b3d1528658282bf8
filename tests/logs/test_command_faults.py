"""`kmproxy logs` while the kubelet, the list of pods or the disk fails: no line is lost or repeated."""

import asyncio
from pathlib import Path

import pytest

from kmproxy.simulator.kubelet_faults import Fault
from tests.support.loki import shipping, until


def asked(kubelet, before, path):
    """The number of requests for paths below this one, since there were `before` requests."""
    return sum(each.path.startswith(path) for each in kubelet.requests[before:])


@pytest.mark.parametrize(
    ("fault", "needs"),
    [
        (Fault.STATUS, {"status": 500}),
        (Fault.STATUS, {"status": 503}),
        (Fault.DISCONNECT, {}),
        (Fault.HTML, {}),
        (Fault.BODY, {"body": b"x" * 3_000_000, "content_type": "text/plain"}),
        (Fault.CUT_CHUNKED, {"after": 0}),
        (Fault.NO_FRAMING, {}),
    ],
)
async def test_a_kubelet_that_fails(kubelet, logs, loki, command, fault, needs):
    """Requests for log files fail for a while; then reading goes on where it was."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
        app.write("one")
        await loki.has("one")
        kubelet.fail(fault, path="/logs", **needs)
        before = len(kubelet.requests)
        app.write("two")
        await until(lambda: asked(kubelet, before, "/logs") >= 2)
        kubelet.recover()
        app.write("three")
        await loki.has("two", "three")
    assert loki.texts == ["one", "two", "three"]


async def test_a_list_without_the_pods(kubelet, logs, loki, command):
    """As after a restart of the kubelet: the pods come back, and no line is sent again."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
        app.write("one")
        await loki.has("one")
        kubelet.pods = []
        before = len(kubelet.requests)
        await until(lambda: asked(kubelet, before, "/pods") >= 3)
        app.write("two")
        kubelet.pods = None
        await loki.has("two")
        app.write("three")
        await loki.has("three")
    assert loki.texts == ["one", "two", "three"]


async def test_more_than_fits_into_memory(logs, loki, command):
    """While the endpoint is away reading waits; then every line comes, each once, in order."""
    app = logs.start("shop", "web-0").containers["app"]
    loki.status = 503
    lines = [f"{number} " + "x" * 1000 for number in range(4000)]
    for line in lines:
        app.write(line)
    environment, flags = command
    flags += ["--max-buffer-bytes=1MiB", "--batch-bytes=256KiB", "--max-line-bytes=64KiB"]
    async with shipping(environment, flags) as (process, _):
        await until(lambda: loki.pushes >= 2)
        resident = await _resident(process.pid)
        loki.status = 204
        await loki.has(*lines)
        assert await _resident(process.pid) < resident + (24 << 20)
    assert loki.texts == lines


async def _resident(pid):
    """Bytes of memory that a process has."""
    text = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


async def test_a_namespace_that_is_not_known_yet(cluster, logs, loki, command):
    """Its lines wait for its labels, and are never sent without them."""
    app = logs.start("new", "web-0").containers["app"]
    known = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
        app.write("early")
        known.write("other")
        await loki.has("other")
        await asyncio.sleep(1)
        assert loki.texts == ["other"]
        cluster.api.namespaces.apply("new", {"team": "green"})
        await loki.has("early")
    assert [entry.stream["team"] for entry in loki.entries] == ["red", "green"]


async def test_the_end_while_the_endpoint_is_away(logs, loki, command):
    """The process ends in its grace period, and the next one sends what was not taken."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = command
    async with shipping(environment, flags) as (process, _):
        app.write("one")
        await loki.has("one")
        loki.status = 503
        pushes = loki.pushes
        app.write("two")
        await until(lambda: loki.pushes > pushes)
        process.terminate()
        assert await process.wait() == 0
    loki.status = 204
    app.write("three")
    async with shipping(environment, flags):
        await loki.has("two", "three")
    assert loki.texts == ["one", "two", "three"]


async def test_a_list_of_pods_that_hangs(kubelet, logs, loki, command):
    """The kubelet is asked again, and reading begins."""
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/pods", times=1)
    logs.start("shop", "web-0").containers["app"].write("one")
    async with shipping(*command) as (process, _):
        await loki.has("one")
        assert any("did not list its pods" in line for line in process.said)
