"""Two scrapers: their cost for the kubelets and the daemon, with --share-reads and without.

The daemon, the simulated cluster and the scrapers are a process each, on the same machine. Each
kubelet makes its text anew for each request. It prints what it finds; nothing depends on it.

    python -m tests.support.pair   (make pair)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import zlib
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from kmproxy.bench.processes import cpu_seconds
from kmproxy.simulator.cluster import SimCluster
from tests.support.load import daemon, elsewhere, memory, receive

LATER = 0.4
"""The part of the interval by which the second scraper comes later."""

SHARED = 0.8
"""The part of the interval for which a read is shared."""

HEADERS = {"X-Prometheus-Scrape-Timeout-Seconds": "10", "Accept-Encoding": "gzip"}


async def _cluster(pipe, nodes, pods, directory):
    """Run a cluster; for each message, tell how many requests its kubelets have got."""
    names = [f"node-{number}" for number in range(nodes)]
    async with SimCluster(names, pods_per_namespace=pods) as cluster:
        cluster.write_service_account(directory / "sa")
        pipe.send((os.getpid(), cluster.api.url))
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(sum(len(each.requests) for each in cluster.kubelets.values()))


async def asked(pipe):
    """The requests that the kubelets have got."""
    pipe.send("how many")
    return await receive(pipe)


async def scrape(session, url):
    """Scrape; returns the bytes of the text, or None for what is not whole and labelled."""
    try:
        async with session.get(url, headers=HEADERS) as response:
            member = zlib.decompressobj(31)
            text = member.decompress(await response.read())
            good = response.status == 200 and member.eof and b',team="' in text
            return len(text) if good else None
    except (aiohttp.ClientError, OSError, zlib.error):
        return None


async def scrape_all(base, nodes, interval, rounds):
    """Scrape every node so often, by two scrapers with an offset; returns the sizes."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as session:
        began = time.monotonic()

        async def target(number, later):
            url = f"{base}/api/v1/nodes/node-{number}/proxy/metrics/cadvisor"
            due, sizes = began + interval * (number / nodes + later), []
            for _ in range(rounds):
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                sizes.append(await scrape(session, url))
                due += interval
            return sizes

        targets = [target(number, later) for number in range(nodes) for later in (0, LATER)]
        return [size for sizes in await asyncio.gather(*targets) for size in sizes]


async def measure(directory, nodes, pods, interval, rounds):
    """Measure both ways in front of one cluster; returns whether a scrape failed."""
    failed = False
    async with AsyncExitStack() as stack:
        pipe = await stack.enter_async_context(elsewhere(_cluster, nodes, pods, directory))
        kubelets, url = await receive(pipe)
        for name, flags in (
            ("each scrape reads", ()),
            ("one read for both", (f"--share-reads={1000 * SHARED * interval:.0f}ms",)),
        ):
            async with daemon(directory, url, "--all-nodes", *flags) as (pid, base):
                await scrape_all(base, nodes, interval, 1)  # connections, nodes, proven heads
                requests, theirs, ours = await asked(pipe), cpu_seconds(kubelets), cpu_seconds(pid)
                sizes = await scrape_all(base, nodes, interval, rounds)
                requests = await asked(pipe) - requests
                theirs, ours = cpu_seconds(kubelets) - theirs, cpu_seconds(pid) - ours
                peak = memory(pid, "VmHWM")
            good = [size for size in sizes if size is not None]
            failed = failed or len(good) < len(sizes)
            if not flags:
                print(f"2 scrapers of {nodes} nodes of {max(good, default=0) / 1e6:.2f} MB, gzip:")
            print(
                f"  {name}: {len(sizes)} scrapes, {len(sizes) - len(good)} failed, {requests} "
                f"requests to kubelets\n    CPU for a pair of scrapes: the kubelet "
                f"{2e3 * theirs / len(sizes):.1f} ms, kmproxy {2e3 * ours / len(sizes):.1f} ms; "
                f"peak RSS {peak / 2**20:.1f} MiB"
            )
    return failed


async def main():
    """Measure; the exit status is 1 if a scrape failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--pods", type=int, default=12, help="of each namespace on each node")
    parser.add_argument("--interval", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return await measure(Path(name), **vars(arguments))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
