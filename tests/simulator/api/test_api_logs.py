"""The simulated `pods/log`: what of a log file it sends, and as which text."""

import asyncio

import pytest

from kmproxy.simulator.logs import SimLogs
from tests.support.loki import until

PATH = "/api/v1/namespaces/a/pods/web-0/log"


@pytest.fixture
def logs(cluster, tmp_path):
    """The log files of node-a, which the daemon may read through the API server."""
    for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
        cluster.api.allow(verb, resource)
    with SimLogs(tmp_path / "log") as made:
        cluster.show_logs("node-a", made)
        yield made


async def read(session, **params):
    """The status and the body of one answer."""
    async with session.get(PATH, params=params) as response:
        return response.status, await response.read()


async def test_timestamps_and_whole_seconds(session, logs):
    """Times have nine digits; sinceTime is cut to its second."""
    app = logs.start("a", "web-0").containers["app"]
    app.write("early", at=1_000_000_000.5)
    app.write("late", "stderr", at=1_000_000_001.25)
    assert await read(session) == (200, b"early\nlate\n")
    _, text = await read(session, timestamps="true", sinceTime="2001-09-09T01:46:41.999Z")
    assert text == b"2001-09-09T01:46:41.250000000Z late\n"


async def test_a_partial_line_without_its_first_part(session, logs):
    """Its rest begins without a time; a whole line of several parts has one time."""
    app = logs.start("a", "web-0").containers["app"]
    app.part(b"one ", stamp=10**18)
    app.part(b"two", stamp=10**18 + 10**9, final=True)
    assert await read(session, timestamps="true") == (
        200, b"2001-09-09T01:46:40.000000000Z one two\n",
    )  # fmt: skip
    assert (await read(session, timestamps="true", sinceTime="2001-09-09T01:46:41Z"))[1] == b"two\n"


async def test_instances(session, logs):
    """Only the newest and the one before can be read, and no rotated file."""
    app = logs.start("a", "web-0").containers["app"]
    app.write("rotated")
    app.rotate()
    app.write("first")
    status, text = await read(session, previous="true")
    assert status == 400
    assert b'previous terminated container \\"app\\" in pod \\"web-0\\" not found' in text
    app.restart()
    app.write("second")
    assert await read(session, previous="true") == (200, b"first\n")
    assert await read(session) == (200, b"second\n")


async def test_following(session, logs, cluster):
    """Lines come as they are written, over a rotation, until the container ends."""
    app = logs.start("a", "web-0").containers["app"]
    app.write("one")
    async with session.get(PATH, params={"follow": "true"}) as response:
        assert await response.content.readline() == b"one\n"
        app.write("two")
        assert await response.content.readline() == b"two\n"
        app.rotate()
        app.write("three")
        assert await response.content.readline() == b"three\n"
        assert cluster.api.pod_logs.followers == 1
        app.write("last")
        app.stop()
        assert await response.content.read() == b"last\n"


async def test_an_idle_container_sends_no_head(session, logs, cluster):
    """The head of an answer comes with the first byte."""
    app = logs.start("a", "web-0").containers["app"]
    asking = asyncio.create_task(session.get(PATH, params={"follow": "true"}))
    await until(lambda: cluster.api.pod_logs.followers)
    assert not asking.done()
    app.write("first")
    async with await asking as response:
        assert await response.content.readline() == b"first\n"


async def test_who_may_read(session, logs, cluster):
    """It needs `get pods/log`; the pods are in lists."""
    logs.start("a", "web-0")
    cluster.api.deny("get", "pods/log")
    status, text = await read(session)
    assert status == 403
    assert b'cannot get resource \\"pods/log\\"' in text
    async with session.get("/api/v1/pods") as response:
        names = [each["metadata"]["name"] for each in (await response.json())["items"]]
    assert "web-0" in names


async def test_unknown_names(session, logs):
    """A pod that is not there is 404; a container that must be named, or is unknown, is 400."""
    assert (await read(session))[0] == 404
    logs.start("a", "web-0", ["app", "sidecar"])
    assert (await read(session))[0] == 400
    assert (await read(session, container="x"))[0] == 400
    assert (await read(session, container="sidecar"))[0] == 200
