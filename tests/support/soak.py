"""A soak: random faults for a long time, and every answer checked.

A daemon as a process of its own, in front of a simulated cluster that is made to
fail at random, from a seed. Every answer must be whole and rightly labelled, or
an error that the documentation knows; at the end nothing may have leaked.

    python -m tests.support.soak --seconds 600 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES, SimCluster
from kmproxy.simulator.kubelet import Fault

NODES = ("node-a", "node-b", "node-c")
PATH = "/api/v1/nodes/{}/proxy/metrics/cadvisor"
TIMEOUT = "2"  # seconds that a scrape waits, as Prometheus says it
SLOTS = 8
CALM = 70.0  # seconds after a fault of the API server by which it has been asked twice more
TROUBLE, PEACE = 30.0, 90.0  # seconds in turn, with and without faults of the API server
LAG = 2.0  # seconds that a change may take while all is well
GROWTH = 8 << 20  # bytes of RSS that are no leak yet: what allocators keep
STATUSES = {502, 503, 504}

_PAIR = re.compile(rb'(?<=[{,])namespace="([^"]+)"(?:,team="([^"]*)")?(?=[,}])')


class Truth:
    """Which team each namespace had, and when."""

    def __init__(self):
        self._history = defaultdict(list)  # namespace -> [(since, team or None)]
        self.troubled_since = self.troubled_until = 0.0

    def set(self, namespace, team, now):
        """From now on the namespace has this team."""
        self._history[namespace].append((now, team))

    def trouble(self, now):
        """Note that the API server fails: older labels are allowed until some time after it."""
        if now > self.troubled_until:
            self.troubled_since = now
        self.troubled_until = now + CALM

    def settled(self, namespace, now):
        """Whether its team must be known: only then does a deletion keep just that."""
        return now > self.troubled_until and now > self._history[namespace][-1][0] + LAG

    def allowed(self, namespace, began, ended):
        """The teams that an answer of this time may show."""
        since = (self.troubled_since if began < self.troubled_until else began) - LAG
        history = self._history[namespace]
        teams = {team for at, team in history if since <= at <= ended}
        teams |= {team for at, team in history[-1:] if at < since}
        earlier = [team for at, team in history if at < since]
        return teams | set(earlier[-1:])


def fault_of(answer, payload, truth, began, ended):
    """The fault of an answer, or None.

    Its labels must be those of their time, and taking them off must give the payload.
    """
    if _PAIR.sub(rb'namespace="\1"', answer) != payload:
        return f"{len(answer)} bytes are not the payload's {len(payload)} and their labels"
    seen = defaultdict(set)
    for match in _PAIR.finditer(answer):
        seen[match[1].decode()].add(match[2].decode() if match[2] is not None else None)
    for namespace, teams in seen.items():
        if wrong := teams - truth.allowed(namespace, began, ended):
            return f"{namespace} as {wrong}, allowed are {truth.allowed(namespace, began, ended)}"
    return None


def rss(pid):
    """Resident bytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) << 10


def descriptors(pid):
    """Open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Soak:
    """One run: the cluster, the daemon, the faults in effect, and the answers."""

    def __init__(self, seed, directory):
        self.random = random.Random(seed)
        self.directory = directory
        self.truth = Truth()
        self.outcomes = Counter()
        self.faults = Counter()
        self.problems = []
        self.serial = 0
        self.fresh = 0  # answers in which only the latest labels were right

    async def run(self, seconds, say):
        """Break and check for this long; returns the problems found."""
        async with AsyncExitStack() as stack:
            # A payload that does not change, so that an answer can be compared to the byte.
            async with SimCluster(NODES[:1], pods_per_namespace=2) as model:
                payload = self.directory / "payload"
                payload.write_bytes(await self._exposition(model))
            self.payload = payload.read_bytes()
            self.cluster = await stack.enter_async_context(SimCluster(NODES, payload=payload))
            self.cluster.api.bookmark_interval = 1.0
            for name, labels in DEFAULT_NAMESPACES.items():
                self.truth.set(name, labels.get("team"), 0.0)
            process = await self._start()
            stack.push_async_callback(self._end, process)
            self.session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
                )
            )
            await self._calm()
            before = [rss(process.pid), descriptors(process.pid)]
            self.began = time.monotonic()
            end = self.began + seconds
            tasks = [self._until(end, work) for work in (self._move, self._break, self._storm)]
            tasks += [self._until(end, self._scrape) for _ in range(6)]
            tasks += [
                self._until(end, self._report, say),
                self._weigh(seconds / 4, process, before),
            ]
            await asyncio.gather(*tasks)
            self.cluster.api.recover()
            for kubelet in self.cluster.kubelets.values():
                kubelet.recover()
            await self._calm()
            await asyncio.sleep(2)
            after = rss(process.pid), descriptors(process.pid)
            say(f"RSS {before[0] / 2**20:.1f} MiB after a quarter of the time, "
                f"{after[0] / 2**20:.1f} at the end; descriptors {before[1]}, {after[1]}")  # fmt: skip
            if after[0] - before[0] > GROWTH:
                self.problems.append(f"RSS has grown by {after[0] - before[0]} bytes")
            if after[1] - before[1] > SLOTS * (len(NODES) + 1):
                self.problems.append(f"descriptors have grown by {after[1] - before[1]}")
            if process.returncode is not None:
                self.problems.append(f"the daemon ended with status {process.returncode}")
        if b"Traceback" in (log := (self.directory / "log").read_bytes()):
            self.problems.append("a traceback in the log: " + log.decode()[-2000:])
        if self.cluster.token.encode() in log:
            self.problems.append("a token in the log")
        return self.problems

    async def _exposition(self, cluster):
        kubelet = cluster.kubelets[NODES[0]]
        url = kubelet.plain_url + "/metrics/cadvisor"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.read()

    async def _start(self):
        self.cluster.write_service_account(self.directory / "sa")
        api = urlsplit(self.cluster.api.url)
        log = (self.directory / "log").open("wb")
        arguments = [
            "--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0", "--all-nodes",
            f"--service-account-dir={self.directory / 'sa'}", f"--max-concurrency={SLOTS}",
            f"--label-snapshot={self.directory / 'labels'}", "--max-response-bytes=8000000",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kmproxy", "serve", *arguments,
            stderr=log, stdout=log,
            env=dict(os.environ, KUBERNETES_SERVICE_HOST=api.hostname,
                     KUBERNETES_SERVICE_PORT=str(api.port)),
        )  # fmt: skip
        log.close()
        while not (match := re.search(r"serving metrics on port (\d+)", self._log())):
            if process.returncode is not None:
                raise SystemExit(self._log())
            await asyncio.sleep(0.05)
        self.url = f"http://127.0.0.1:{match[1]}"
        self.port = int(match[1])
        return process

    def _log(self):
        return (self.directory / "log").read_text("utf-8")

    async def _end(self, process):
        if process.returncode is None:
            process.terminate()
        await process.wait()

    async def _calm(self):
        """Wait until all is well: a new team shows on every node."""
        self._set_team("payments")
        team = f'team="team-{self.serial}"'.encode()
        async with asyncio.timeout(CALM * 2):
            for node in NODES:
                while True:
                    with suppress(aiohttp.ClientError, EOFError):
                        status, body = await self._get(PATH.format(node))
                        if status == 200 and team in body:
                            break
                    await asyncio.sleep(0.1)

    async def _until(self, end, work, *arguments):
        while time.monotonic() < end:
            await work(*arguments)

    async def _weigh(self, delay, process, before):
        """Note the RSS after every feature was used once. It must not grow from then on."""
        await asyncio.sleep(delay)
        before[0] = rss(process.pid)

    async def _report(self, say):
        await asyncio.sleep(10)
        done = ", ".join(f"{count} {what}" for what, count in self.outcomes.most_common())
        say(f"{sum(self.faults.values())} faults; answers: {done}; {len(self.problems)} problems")
        if self.problems:
            say(f"WRONG: {self.problems[-1]}")

    def _set_team(self, namespace):
        self.serial += 1
        team = f"team-{self.serial}"
        self.truth.set(namespace, team, time.monotonic())
        self.cluster.api.namespaces.apply(namespace, {"team": team})

    async def _move(self):
        """A namespace changes its team, or goes and comes back: it keeps the labels it had."""
        await asyncio.sleep(self.random.uniform(0.02, 0.5))
        namespace = self.random.choice(list(DEFAULT_NAMESPACES))
        spaces = self.cluster.api.namespaces
        settled = self.truth.settled(namespace, time.monotonic())
        if settled and spaces.get(namespace) and self.random.random() < 0.3:
            spaces.delete(namespace)
        else:
            self._set_team(namespace)

    async def _break(self):
        """One fault, for a while."""
        await asyncio.sleep(self.random.uniform(0.1, 1.0))
        breaks = [self._break_kubelet]
        if (time.monotonic() - self.began) % (TROUBLE + PEACE) < TROUBLE:
            breaks += [self._break_api, self._break_cluster]
        await self.random.choice(breaks)()

    async def _break_kubelet(self):
        # An EMPTY answer is whole, and not the payload: it proves nothing here.
        fault = self.random.choice([fault for fault in Fault if fault is not Fault.EMPTY])
        needs = {
            Fault.BOMB: {"size": 16 << 20},
            Fault.STATUS: {"status": self.random.choice([401, 403, 404, 500, 503])},
            Fault.SLOW: {"rate": 100_000},
            Fault.BODY: {"body": self.payload, "content_type": "text/plain; version=0.0.4"},
        }.get(fault, {})
        kubelet = self.cluster.kubelets[self.random.choice(NODES)]
        kubelet.fail(fault, times=self.random.randint(1, 3), **needs)
        self.faults[f"kubelet {fault.name}"] += 1

    async def _break_api(self):
        fault = self.random.choice(list(ApiFault))
        needs = {}
        if fault in {ApiFault.STATUS, ApiFault.ERROR_EVENT}:
            status = self.random.choice([401, 403, 410, 429, 500, 503, 504])
            needs = {"status": status, "retry_after": 1 if status == 429 else None}
        self.truth.trouble(time.monotonic())
        api = self.cluster.api
        match = self.random.choice(["watch namespaces", "list namespaces", None])
        api.fail(match, fault, times=self.random.randint(1, 3), **needs)
        await asyncio.sleep(self.random.uniform(0.1, 2))
        api.recover()
        api.break_watches()
        if fault is ApiFault.HANG:  # else it would be found dead only after 80 s
            await api.stop()
            await api.start()
        self.truth.trouble(time.monotonic())
        self.faults[f"API server {fault.name}"] += 1

    async def _break_cluster(self):
        what = self.random.choice(["rotate", "break", "expire", "restore", "away", "flood"])
        api = self.cluster.api
        self.truth.trouble(time.monotonic())
        match what:
            case "rotate":
                self.cluster.rotate_token()
                self.cluster.write_service_account(self.directory / "sa")
            case "break":
                api.break_watches()
            case "expire":
                api.expire_history()
                api.break_watches()
            case "restore":
                api.restore_backup()
                for namespace in DEFAULT_NAMESPACES:
                    labels = api.namespaces.get(namespace)["metadata"]["labels"]
                    self.truth.set(namespace, labels.get("team"), time.monotonic())
            case "flood":
                for _ in range(500):
                    self._set_team(self.random.choice(list(DEFAULT_NAMESPACES)))
            case "away":
                await api.stop()
                await asyncio.sleep(self.random.uniform(0.1, 3))
                await api.start()
        self.truth.trouble(time.monotonic())
        self.faults[what] += 1

    async def _storm(self):
        """Many clients at once, most of which leave before the answer."""
        await asyncio.sleep(self.random.uniform(2, 6))
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(self._leave())

    async def _leave(self):
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            path = PATH.format(self.random.choice(NODES))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(self.random.uniform(0, 0.1))
            writer.transport.abort()
        self.outcomes["left"] += 1

    async def _scrape(self):
        """One scrape, in one of the ways there are, checked."""
        await asyncio.sleep(self.random.uniform(0, 0.1))
        path = PATH.format(self.random.choice(NODES))
        began = time.monotonic()
        try:
            way = self._get if self.random.random() < 0.7 else self._get_plainly
            status, body = await asyncio.wait_for(way(path), 10)
        except TimeoutError:
            self.problems.append("no end within 10 s of a scrape that waits 2")
            return
        except (aiohttp.ClientError, OSError, EOFError):
            self.outcomes["broken"] += 1
            return
        self.outcomes[str(status)] += 1
        if status == 200:
            self.fresh += began > self.truth.troubled_until
            problem = fault_of(body, self.payload, self.truth, began, time.monotonic())
            if problem:
                self.problems.append(f"{way.__name__} after {list(self.faults)[-3:]}: {problem}")
        elif status not in STATUSES or body.count(b"\n") != 1 or len(body) > 300:
            self.problems.append(f"status {status}: {body[:300]!r}")

    async def _get(self, path):
        """HTTP/1.1, kept alive, at times with gzip."""
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": TIMEOUT, "Accept-Encoding": "identity"}
        if self.random.random() < 0.5:
            headers["Accept-Encoding"] = "gzip"
        async with self.session.get(self.url + path, headers=headers) as response:
            body = await response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                member = zlib.decompressobj(31)
                body = member.decompress(body)
                if not member.eof:
                    raise EOFError
            return response.status, body

    async def _get_plainly(self, path):
        """HTTP/1.0, where only a reset tells that an answer is not whole."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            timeout = f"X-Prometheus-Scrape-Timeout-Seconds: {TIMEOUT}\r\n"
            writer.write(f"GET {path} HTTP/1.0\r\n{timeout}\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if not head:
            raise EOFError
        return int(head.split()[1]), body


def main():
    """Run a soak; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, limit[1]), limit[1]))
    logging.disable()  # the simulator tells of every client that has left it
    began = time.monotonic()

    def say(line):
        print(f"{time.monotonic() - began:6.0f} s: {line}", flush=True)

    say(f"seed {arguments.seed}, {arguments.seconds:g} s")
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(arguments.seed, Path(directory))
        problems = asyncio.run(soak.run(arguments.seconds, say))
    for outcomes in (soak.faults, soak.outcomes):
        say(", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    for problem in problems[:20]:
        say(f"WRONG: {problem}")
    whole = soak.outcomes["200"]
    say(f"{whole} answers whole and rightly labelled, {soak.fresh} of them within {LAG:g} s of a change, "
        f"{len(problems)} problems")  # fmt: skip
    return 1 if problems or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
