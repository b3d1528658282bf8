"""Figures of `kmproxy logs`: the cost of idle and writing containers, and the delay of a line.

The simulated node and the push endpoint are one process, kmproxy is another one, and the backlog
is written before it begins. It prints its figures; nothing depends on them. Run it with
`python -m tests.support.log_figures`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from kmproxy.bench.processes import cpu_seconds
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES, SimCluster
from kmproxy.simulator.logs import SimLogs
from tests.support.load import memory, milliseconds
from tests.support.loki import arguments, shipping
from tests.support.soak_logs import Endpoint, Push

TEXT = "x" * 130
"""The end of each line, which has about 150 bytes with its beginning."""


class Arrivals:
    """The endpoint, and when the lines with a number came."""

    def __init__(self):
        self.endpoint = Endpoint(self._store)
        self.lines = 0
        self.bytes = 0
        self.came = {}
        self._more = asyncio.Event()

    def _store(self, streams):
        now = time.time()
        for stream in streams:
            for _, text, *_ in stream["values"]:
                self.lines += 1
                self.bytes += len(text)
                if text.startswith("at "):
                    self.came[text] = now
        self._more.set()
        return Push([], 0)

    async def has(self, lines):
        """Wait until so many lines came."""
        async with asyncio.timeout(600):
            while self.lines < lines:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def node(directory, containers):
    """A node with so many containers, and an endpoint. Yields all that a measurement needs."""
    async with SimCluster(["node-a"], DEFAULT_NAMESPACES) as cluster:
        cluster.api.allow("get", "nodes/log")
        with SimLogs(directory / "log") as logs:
            cluster.kubelets["node-a"].logs = logs
            names = list(DEFAULT_NAMESPACES)
            pods = [
                logs.start(names[number % len(names)], f"pod-{number}")
                for number in range(containers)
            ]
            arrivals = Arrivals()
            await arrivals.endpoint.start()
            environment, flags = arguments(cluster, directory, arrivals.endpoint)
            flags.remove("--batch-wait=100ms")
            try:
                yield [pod.containers["app"] for pod in pods], arrivals, environment, flags
            finally:
                await arrivals.endpoint.stop()


async def idle(directory, containers, seconds):
    """CPU and memory while nobody writes: after a while each file is asked for every 10 s."""
    async with node(directory, containers) as (writers, arrivals, environment, flags):
        for each in writers:
            each.write("the only line")
        async with shipping(environment, flags) as (process, _):
            await arrivals.has(containers)
            await asyncio.sleep(30)
            begin, cpu = time.monotonic(), cpu_seconds(process.pid)
            await asyncio.sleep(seconds)
            share = (cpu_seconds(process.pid) - cpu) / (time.monotonic() - begin)
            print(f"{containers} idle containers: {share:.2%} of a core, "
                  f"{memory(process.pid) / 2**20:.0f} MiB RSS")  # fmt: skip


async def backlog(directory, lines):
    """CPU for lines that are there already, of ten containers."""
    async with node(directory, 10) as (writers, arrivals, environment, flags):
        for number in range(lines):
            writers[number % 10].write(f"line {number:10} {TEXT}")
        async with shipping(environment, flags) as (process, _):
            begin = time.monotonic()
            await arrivals.has(lines)
            took, cpu = time.monotonic() - begin, cpu_seconds(process.pid)
            print(f"{lines} lines of {arrivals.bytes / lines:.0f} bytes: {cpu:.2f} s of CPU with the start, "
                  f"{lines / cpu:,.0f} lines and {arrivals.bytes / cpu / 1e6:.1f} MB a second and core; "
                  f"{took:.1f} s, {memory(process.pid, 'VmHWM') / 2**20:.0f} MiB at most")  # fmt: skip


async def delays(directory, seconds, *more):
    """The time from a write to the arrival of its push, of 50 containers with 100 lines a second."""
    async with node(directory, 50) as (writers, arrivals, environment, flags):
        chance = random.Random(16)
        written = {}
        async with shipping(environment, [*flags, *more]) as _:
            writers[0].write("first")
            await arrivals.has(1)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                text = f"at {len(written)}"
                written[text] = time.time()
                chance.choice(writers).write(text)
                await asyncio.sleep(0.01)
            await arrivals.has(1 + len(written))
        found = [arrivals.came[text] - at for text, at in written.items()]
        what = " ".join(more) or "default flags"
        print(f"from write to push, {what}: {milliseconds(found)} ({len(found)} lines)")


def main():
    """Measure all, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lines", type=int, default=300_000)
    parsed = parser.parse_args()
    logging.disable()
    measurements = [
        lambda folder: idle(folder, 150, parsed.seconds),
        lambda folder: backlog(folder, parsed.lines),
        lambda folder: delays(folder, parsed.seconds),
        lambda folder: delays(folder, parsed.seconds, "--batch-wait=200ms"),
    ]
    for measure in measurements:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
