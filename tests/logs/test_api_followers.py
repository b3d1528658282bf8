"""The number of logs that are followed at the same time is bounded."""

import asyncio

from kmproxy.cli.read import read_logs
from kmproxy.daemon.logs import LogsDaemon
from kmproxy.logs import api
from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.logs import SimLogs
from tests.support.loki import Loki, arguments, until


async def test_further_containers_wait(tmp_path, monkeypatch, caplog):
    """It is said and shown; when a container ends, the next one is followed. No line is lost."""
    monkeypatch.setattr(api, "MAX_FOLLOWERS", 2)
    loki = Loki()
    await loki.start()
    stop = asyncio.Event()
    async with SimCluster(["node-a"], {"shop": {"team": "red"}}, pods_per_namespace=0) as cluster:
        for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
            cluster.api.allow(verb, resource)
        with SimLogs(tmp_path / "log") as logs:
            cluster.show_logs("node-a", logs)
            apps = [logs.start("shop", f"web-{number}").containers["app"] for number in range(5)]
            for number, each in enumerate(apps):
                each.write(f"of {number}")
            environment, flags = arguments(cluster, tmp_path, loki)
            flags = [each for each in flags[1:] if not each.startswith("--node-")]
            command, _ = read_logs([*flags, "--source=api"], environment)
            daemon = LogsDaemon(command, environment)
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
    await loki.stop()
    assert sorted(loki.texts) == [f"of {number}" for number in range(5)]
