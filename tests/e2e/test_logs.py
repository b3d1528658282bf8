"""`kmproxy logs` and a real VictoriaLogs: each line is read back once, under its team."""

from __future__ import annotations

import asyncio
import calendar
import random
import re
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import cycle
from types import SimpleNamespace

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.logs import SimLogs
from tests.support.loki import arguments, shipping
from tests.support.programs import VictoriaLogs, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("victoria-logs")]

BATCH = 65_536
"""Bytes of a push at most, before compression."""


def nanoseconds(text):
    """The time of a stored line, in nanoseconds since 1970."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 10**9 + int(rest.ljust(9, "0"))


class Node:
    """A node whose containers write, what they have written, and what the server has stored."""

    def __init__(self, cluster, logs, server, session):
        self.cluster = cluster
        self.server = server
        self.session = session
        self.random = random.Random(16)
        self.teams = {"shop": "red", "blog": "green"}
        self.pods = [
            logs.start(namespace, f"{namespace}-{number}", ["app", "sidecar"])
            for namespace in self.teams
            for number in range(2)
        ]
        self.restarting = cycle(pod.containers["app"] for pod in self.pods)
        self.written = {}  # text -> (time, pod, container, stream, team)

    async def write(self, count):
        """Write so many lines, about 4,000 a second. Files rotate, and a container restarts.

        The kubelet keeps one dead instance, so a container restarts only at every fourth call.
        """
        next(self.restarting).restart()
        for _ in range(count):
            pod = self.random.choice(self.pods)
            container = pod.containers[self.random.choice(["app", "sidecar"])]
            stream = self.random.choice(["stdout", "stderr"])
            length = 20_000 if self.random.random() < 0.001 else self.random.randrange(150)
            text = f"line {len(self.written)} {'x' * length}"
            stamp = container.write(text, stream)
            team = self.teams[pod.namespace]
            self.written[text] = (stamp, pod.name, container.name, stream, team)
            if not len(self.written) % 40:
                await asyncio.sleep(0.01)

    async def stored(self):
        """How many times each line is stored, once all are, with every field as it was written."""

        async def check():
            found = await self.server.lines()
            assert len({each["_msg"] for each in found}) == len(self.written)
            return found

        found = await eventually(check, 60)
        for each in found:
            stamp, pod, container, stream, team = self.written[each["_msg"]]
            assert nanoseconds(each["_time"]) == stamp
            assert (each["pod"], each["container"], each["stream"]) == (pod, container, stream)
            assert each["team"] == team, each["_msg"][:40]
        return Counter(each["_msg"] for each in found)

    async def move(self, page, namespace, team):
        """Label a namespace. Returns when kmproxy knows it."""
        self.cluster.api.namespaces.apply(namespace, {"team": team})

        async def check():
            async with self.session.get(f"http://127.0.0.1:{page}/targets") as response:
                targets = await response.json()
            labels = [each["labels"] for each in targets]
            assert {each["team"] for each in labels if each["namespace"] == namespace} == {team}

        await eventually(check)
        self.teams[namespace] = team

    async def counted(self, port, name):
        """The sum of an own metric's samples."""
        async with self.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text = await response.text()
        return sum(
            float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        )


@pytest.fixture
async def node(tmp_path):
    """A simulated node, and a VictoriaLogs."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        server = VictoriaLogs.of(session, tmp_path)
        stack.push_async_callback(server.stop)
        await server.start()
        namespaces = {"shop": {"team": "red"}, "blog": {"team": "green"}}
        cluster = await stack.enter_async_context(SimCluster(["node-a"], namespaces))
        cluster.api.allow("get", "nodes/log")
        logs = stack.enter_context(SimLogs(tmp_path / "log", max_bytes=40_000))
        cluster.kubelets["node-a"].logs = logs
        yield Node(cluster, logs, server, session)


async def test_each_line_once_under_its_team(node, tmp_path):
    """Over rotations, moves, a restart of the server, restarts of kmproxy, and kills.

    A push whose answer the server's restart took away may be stored twice, if it is counted as
    repeated. A kill repeats at most one push.
    """
    environment, flags = arguments(
        node.cluster, tmp_path, SimpleNamespace(url=node.server.push_url)
    )
    flags += [f"--batch-bytes={BATCH}", f"--max-line-bytes={BATCH}"]

    async with shipping(environment, flags) as (process, (page, telemetry)):
        await node.write(4000)
        times = await node.stored()
        assert times.total() == 4000
        await node.move(page, "shop", "blue")
        await node.write(2000)
        writing = asyncio.create_task(node.write(2000))
        await node.server.stop()
        await writing
        await node.server.start()
        await node.write(2000)
        times = await node.stored()
        repeated = await node.counted(telemetry, "kmproxy_log_lines_repeated_total")
        extra = times.total() - 10_000
        assert extra <= repeated
        await node.move(page, "blog", "red")
        await node.write(2000)
        assert await node.counted(telemetry, "kmproxy_log_lines_lost_total") == 0
        process.send_signal(signal.SIGTERM)
        await node.write(1000)
        assert await process.wait() == 0

    for _ in range(3):
        async with shipping(environment, flags) as (process, (page, telemetry)):
            await node.write(2000)
            writing = asyncio.create_task(node.write(2000))
            await asyncio.sleep(node.random.uniform(0.05, 0.4))
            process.kill()
            await process.wait()
            await writing
        async with shipping(environment, flags) as (process, (page, telemetry)):
            before, times = times, await node.stored()
            twice = {text: count for text, count in times.items() if count > before.get(text, 1)}
            assert sum(map(len, twice)) <= BATCH
            assert set(twice.values()) <= {2}
            assert await node.counted(telemetry, "kmproxy_log_lines_lost_total") == 0
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert len(times) == 25_000
