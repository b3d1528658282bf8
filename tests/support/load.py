"""Load: many nodes through one process, and many namespaces that change.

The daemon, the simulated cluster and whoever scrapes are a process each, on the
same machine. It prints what it finds; nothing depends on it.

    python -m tests.support.load
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
import time
import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from kmproxy.bench.processes import cpu_seconds
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES, SimCluster

TIMEOUT = "10"
TRACKED = 100  # namespaces that the small answer shows
RELIST = 2.0  # seconds between two histories lost, in the second half of the time
SEEN = 0.25  # seconds before that half in which no change is made that must be seen


def memory(pid, what="VmRSS"):
    """Resident bytes of a process, now or at most (`VmHWM`)."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(re.search(rf"{what}:\s+(\d+)", text)[1]) << 10


def percentile(values, share):
    """The value under which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def milliseconds(values):
    """Median, 99th percentile and maximum, for a person."""
    if not values:
        return "none"
    figures = (percentile(values, 0.5), percentile(values, 0.99), max(values))
    return "p50 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms".format(*(1e3 * each for each in figures))


@asynccontextmanager
async def daemon(directory, api_url, *flags):
    """A daemon as a pod would run it; yields its process id and URL."""
    api = urlsplit(api_url)
    log = directory / "log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kmproxy", "serve",
            "--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0",
            f"--service-account-dir={directory / 'sa'}", *flags,
            stdout=sink, stderr=sink,
            env=dict(os.environ, KUBERNETES_SERVICE_HOST=api.hostname,
                     KUBERNETES_SERVICE_PORT=str(api.port)),
        )  # fmt: skip
    try:
        ready = re.compile(r"serving metrics on port (\d+).*namespaces loaded", re.DOTALL)
        while not (match := ready.search(log.read_text("utf-8"))):
            if process.returncode is not None:
                raise SystemExit(log.read_text("utf-8"))
            await asyncio.sleep(0.05)
        yield process.pid, f"http://127.0.0.1:{match[1]}"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def elsewhere(work, *arguments):
    """Run `work(pipe, *arguments)` in a process of its own; yields our end of the pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(work, theirs, *arguments), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _run(work, pipe, *arguments):
    raise_limits()
    asyncio.run(work(pipe, *arguments))


def raise_limits():
    """Allow as many descriptors as may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def receive(pipe):
    """What comes next, without holding up the loop."""
    return await asyncio.to_thread(pipe.recv)


async def _many_nodes(pipe, nodes, directory, payload):
    names = [f"node-{number}" for number in range(nodes)]
    async with SimCluster(names, payload=payload, pods_per_namespace=1) as cluster:
        cluster.write_service_account(directory / "sa")
        pipe.send(cluster.api.url)
        await asyncio.Event().wait()


async def load_nodes(directory, nodes, interval, seconds):
    """Scrape every node once per interval, as Prometheus spreads them."""
    payload = directory / "payload"
    async with SimCluster(["model"], pods_per_namespace=3) as model, aiohttp.ClientSession() as get:
        url = model.kubelets["model"].plain_url + "/metrics/cadvisor"
        async with get.get(url) as response:
            payload.write_bytes(await response.read())
    expected = len(re.findall(rb'[{,]namespace="(?:frontend|payments)', payload.read_bytes()))
    took, failed = [], []
    async with AsyncExitStack() as stack:
        pipe = await stack.enter_async_context(elsewhere(_many_nodes, nodes, directory, payload))
        pid, base = await stack.enter_async_context(
            daemon(directory, await receive(pipe), "--all-nodes", "--max-concurrency=16")
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        )
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": TIMEOUT, "Accept-Encoding": "gzip"}

        async def scrape(number):
            url = f"{base}/api/v1/nodes/node-{number}/proxy/metrics/cadvisor"
            began = time.monotonic()
            try:
                async with session.get(url, headers=headers) as response:
                    body = await response.read()
                    took.append(time.monotonic() - began)
                    member = zlib.decompressobj(31)
                    text = member.decompress(body)
                    if (
                        response.status != 200
                        or not member.eof
                        or text.count(b',team="') != expected
                    ):
                        failed.append(f"{response.status}: {text[:100]!r}")
            except (aiohttp.ClientError, OSError, zlib.error) as error:
                failed.append(repr(error))

        async def target(number):
            due = time.monotonic() + interval * number / nodes
            end = time.monotonic() + seconds
            while due < end:
                await asyncio.sleep(due - time.monotonic())
                await scrape(number)
                due += interval

        began, cpu = time.monotonic(), cpu_seconds(pid)
        await asyncio.gather(*(target(number) for number in range(nodes)))
        lasted, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu
        peak = memory(pid, "VmHWM")
    print(f"{nodes} nodes of {payload.stat().st_size / 1e6:.2f} MB every {interval:g} s, "
          f"gzip, for {lasted:.0f} s:")  # fmt: skip
    print(f"  {len(took)} scrapes, {len(failed)} failed; {milliseconds(took)}")
    print(f"  CPU {cpu / lasted:.2f} cores, {1e3 * cpu / len(took):.1f} ms per scrape; "
          f"peak RSS {peak / 2**20:.1f} MiB")  # fmt: skip
    for failure in failed[:5]:
        print(f"  {failure}")
    return bool(failed)


async def _many_namespaces(pipe, count, changes, seconds, directory):
    spaces = {f"ns-{number}": {"team": "t0", "app": "web"} for number in range(count)}
    async with SimCluster([], {**DEFAULT_NAMESPACES, **spaces}) as cluster:
        cluster.write_service_account(directory / "sa")
        pipe.send(cluster.api.url)
        await asyncio.to_thread(pipe.recv)  # the daemon is there
        made, serial = {}, 0
        began = time.monotonic()
        half = began + seconds / 2
        next_relist, relists = half, 0
        while (now := time.monotonic()) < began + seconds:
            serial += 1
            tracked = serial % 5 == 0
            number = random.randrange(min(TRACKED, count) if tracked else count)
            if tracked and now < half - SEEN:
                made[serial] = number, now
            cluster.api.namespaces.apply(f"ns-{number}", {"team": f"t{serial}", "app": "web"})
            if now >= next_relist:
                next_relist += RELIST
                relists += 1
                if relists % 2:  # page by page
                    cluster.api.expire_history()
                else:  # all on one page
                    cluster.api.fail("watch", ApiFault.STATUS, times=1, status=403)
                cluster.api.break_watches()
            await asyncio.sleep(max(0.0, began + serial / changes - time.monotonic()))
        lists = [
            r for r in cluster.api.requests if "watch=" not in r.path and "continue=" not in r.path
        ]
        pipe.send((made, half, len(lists) - 1))
        await asyncio.Event().wait()


@asynccontextmanager
async def plain_kubelet(count):
    """A kubelet's read-only port in this process, so that no list holds it up; yields the port."""
    lines = [f'm{{namespace="ns-{number}"}} 1\n' for number in range(count)]
    body = "".join(lines).encode()

    async def answer(_):
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    application = web.Application()
    application.router.add_get("/metrics/cadvisor", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def load_namespaces(directory, count, changes, seconds):
    """Scrape a small answer again and again while namespaces change and are listed anew."""
    async with AsyncExitStack() as stack:
        pipe = await stack.enter_async_context(
            elsewhere(_many_namespaces, count, changes, seconds, directory)
        )
        api_url = await receive(pipe)
        port = await stack.enter_async_context(plain_kubelet(min(TRACKED, count)))
        pid, base = await stack.enter_async_context(
            daemon(
                directory, api_url, "--kubelet-scheme=http", "--node-name-or-ip=127.0.0.1",
                f"--node-port={port}",
            )
        )  # fmt: skip
        session = await stack.enter_async_context(aiohttp.ClientSession())
        pipe.send("begin")
        result = asyncio.ensure_future(receive(pipe))
        seen, scrapes = {}, []
        cpu, started = cpu_seconds(pid), time.monotonic()
        while not result.done():
            began = time.monotonic()
            async with session.get(base + "/metrics/cadvisor") as response:
                text = await response.text()
            now = time.monotonic()
            scrapes.append((began, now - began))
            for number, serial in re.findall(r'namespace="ns-(\d+)",team="t(\d+)"', text):
                seen.setdefault((int(number), int(serial)), now)
            await asyncio.sleep(0.005)
        cpu = (cpu_seconds(pid) - cpu) / (time.monotonic() - started)
        made, half, relists = result.result()
        resident = memory(pid)
    delays = []
    for serial, (number, at) in made.items():
        shown = [when for (n, s), when in seen.items() if n == number and s >= serial]
        if shown:
            delays.append(min(shown) - at)
    before = [took for at, took in scrapes if at < half]
    after = [took for at, took in scrapes if at >= half]
    print(f"{count} namespaces, {changes} changes a second:")
    print(f"  from a change to the end of a scrape that shows it: {milliseconds(delays)}"
          f" ({len(delays)} of {len(made)} changes)")  # fmt: skip
    print(f"  scrapes without relists:  {milliseconds(before)} ({len(before)})")
    print(f"  scrapes with {relists} relists: {milliseconds(after)} ({len(after)})")
    print(f"  RSS {resident / 2**20:.1f} MiB, CPU {cpu:.2f} cores")
    return resident


async def main():
    """Run both; the exit status is 1 if a scrape failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--interval", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--namespaces", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=100)
    arguments = parser.parse_args()
    raise_limits()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        seconds = arguments.seconds / 2
        few = await load_namespaces(directory, 10, arguments.changes, seconds / 3)
        many = await load_namespaces(directory, arguments.namespaces, arguments.changes, seconds)
        print(f"  the map of {arguments.namespaces} costs {(many - few) / 2**20:.1f} MiB of RSS")
        return await load_nodes(directory, arguments.nodes, arguments.interval, arguments.seconds)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
