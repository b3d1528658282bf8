"""The number of logs that are followed at the same time is bounded."""

import asyncio

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.daemon.logs import LogsDaemon
from kmproxy.logs import api
from tests.support.loki import until


@pytest.fixture
def source():
    """Where the logs are read."""
    return "api"


async def test_further_containers_wait(cluster, logs, loki, command, monkeypatch, caplog):
    """It is said and shown; when a container ends, the next one is followed. No line is lost."""
    monkeypatch.setattr(api, "MAX_FOLLOWERS", 2)
    stop = asyncio.Event()
    apps = [logs.start("shop", f"web-{number}").containers["app"] for number in range(5)]
    for number, each in enumerate(apps):
        each.write(f"of {number}")
    environment, flags = command
    parsed, _ = read_logs(flags[1:], environment)
    daemon = LogsDaemon(parsed, environment)
    await daemon.start()
    running = asyncio.create_task(daemon.wait(stop))
    await until(lambda: len(loki.entries) >= 2 and "3 containers wait" in caplog.text)
    assert "--shard" in caplog.text
    ended = 0
    while len(loki.entries) < 5:
        done = {each.metadata["pod"] for each in loki.entries}
        for number, each in enumerate(apps):
            if f"web-{number}" in done and each.running:
                each.stop()
                ended += 1
        await asyncio.sleep(0.05)
    assert ended
    stop.set()
    await running
    await daemon.stop()
    assert cluster.api.pod_logs.most == 2
    assert sorted(loki.texts) == [f"of {number}" for number in range(5)]
