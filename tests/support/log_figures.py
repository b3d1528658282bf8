"""Figures of `kmproxy logs`: the cost of idle and writing containers, and the delay of a line.

The simulated node and the push endpoint are one process, kmproxy is another one, and the backlog
is written before it begins. It prints its figures; nothing depends on them. Run it with
`python -m tests.support.log_figures`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import random
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
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


def write_flood(folders, rate, seconds, written):
    """Write so many bytes a second to the files of containers, and rotate them as a kubelet does.

    Five files of 10 MiB stay of each, none of them compressed. `written` counts the bytes.
    """
    files = [(folder / "0.log").open("ab", 0) for folder in folders]
    number, begin = 0, time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        if written.value > now * rate:
            time.sleep(0.002)
            continue
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}".encode()
        block = b"".join(
            b"%s%03dZ stdout F line %8d %3d %s\n" % (stamp, each, number, each, TEXT.encode())
            for each in range(500)
        )
        place = number % len(folders)
        written.value += files[place].write(block)
        number += 1
        if files[place].tell() > 10 << 20:
            files[place].close()
            name = folders[place] / "0.log"
            name.rename(folders[place] / f"0.log.{datetime.now(UTC):%Y%m%d-%H%M%S}")
            for old in sorted(folders[place].glob("0.log.*"))[:-4]:
                old.unlink()
            files[place] = name.open("ab", 0)


async def flood(directory, rate, seconds):
    """Memory while 50 containers write `rate` MB a second, and the endpoint takes 2 MB a second."""
    async with node(directory, 50) as (writers, arrivals, environment, flags):
        arrivals.endpoint.pace = 2e6
        processes = multiprocessing.get_context("spawn")
        written = processes.Value("q", 0, lock=False)
        async with shipping(environment, flags) as (process, _):
            writers[0].write("first")
            await arrivals.has(1)
            before, begin = memory(process.pid), time.monotonic()
            folders = [each.folder for each in writers]
            writer = processes.Process(
                target=write_flood, args=(folders, rate * 1e6, seconds, written)
            )
            writer.start()
            await asyncio.to_thread(writer.join)
            took = time.monotonic() - begin
            print(f"{written.value / seconds / 1e6:.0f} MB a second in the files of 50 containers for "
                  f"{seconds:.0f} s, {arrivals.bytes / took / 1e6:.1f} MB a second taken: "
                  f"{before / 2**20:.0f} MiB RSS before, "
                  f"{memory(process.pid, 'VmHWM') / 2**20:.0f} MiB at most")  # fmt: skip


async def crowd(directory, containers, seconds):
    """Memory for a large backlog of many containers, of which the endpoint takes nothing.

    Each has a compressed file, or a long line of each stream that never ends.
    """
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}".encode()
    lines = b"".join(
        b"%s.%09dZ stdout F line %d %s\n" % (stamp, number, number, TEXT.encode())
        for number in range(45_000)
    )
    for kind in ("files of 8 MB", "compressed files of 8 MB", "open lines of 500 kB"):
        folder = directory / kind
        async with node(folder, containers) as (writers, arrivals, environment, flags):
            first = writers[0]
            if kind.startswith("open"):
                for _ in range(15):
                    for stream in ("stdout", "stderr"):
                        first.part(b"x" * 16_000, stream)
            else:
                first.raw(lines)
            source = first.path
            if kind.startswith("compressed"):
                first.rotate()
                first.write("after")
                first.rotate()
                (source,) = first.folder.glob("*.gz")
            for each in writers[1:]:
                name = source.name
                if name == "0.log":
                    each.path.unlink()
                (each.folder / name).hardlink_to(source)
            arrivals.endpoint.mood = "refuse"
            async with shipping(environment, flags) as (process, _):
                await asyncio.sleep(seconds)
                print(f"{containers} containers with {kind}, and an endpoint that takes nothing: "
                      f"{memory(process.pid, 'VmHWM') / 2**20:.0f} MiB at most")  # fmt: skip


async def followers(directory, containers, seconds):
    """Memory with --source=api, while 400 kB of each log wait and the endpoint takes nothing."""
    teams = {"shop": {"team": "red"}}
    async with SimCluster(["node-a"], teams, pods_per_namespace=0) as cluster:
        for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
            cluster.api.allow(verb, resource)
        with SimLogs(directory / "log") as logs:
            cluster.show_logs("node-a", logs)
            for number in range(containers):
                app = logs.start("shop", f"web-{number}").containers["app"]
                stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}".encode()
                app.raw(
                    b"".join(
                        b"%s.%09dZ stdout F line %d %s\n" % (stamp, each, each, TEXT.encode())
                        for each in range(2500)
                    )
                )
            endpoint = Endpoint(lambda _: Push([], 0))
            await endpoint.start()
            endpoint.mood = "refuse"
            environment, flags = arguments(cluster, directory, endpoint, "api")
            async with shipping(environment, flags) as (process, _):
                await asyncio.sleep(seconds)
                print(f"{containers} busy containers through the API server, 200 of them followed, "
                      f"and an endpoint that takes nothing: "
                      f"{memory(process.pid, 'VmHWM') / 2**20:.0f} MiB at most")  # fmt: skip
            await endpoint.stop()


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
    parser.add_argument("--rate", type=float, default=50, help="MB a second of the flood")
    parser.add_argument(
        "--only", nargs="*", help="of idle, backlog, flood, crowd, followers and delays"
    )
    parsed = parser.parse_args()
    logging.disable()
    seconds = parsed.seconds
    measurements = {
        "idle": [lambda folder: idle(folder, 150, seconds)],
        "backlog": [lambda folder: backlog(folder, parsed.lines)],
        "flood": [lambda folder: flood(folder, parsed.rate, seconds)],
        "crowd": [lambda folder: crowd(folder, 1000, seconds)],
        "followers": [lambda folder: followers(folder, 300, seconds)],
        "delays": [
            lambda folder: delays(folder, seconds),
            lambda folder: delays(folder, seconds, "--batch-wait=200ms"),
        ],
    }
    for name, measures in measurements.items():
        for measure in measures if name in (parsed.only or measurements) else ():
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
