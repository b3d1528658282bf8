"""A soak of `kmproxy logs`: random faults for a long time, and every line checked.

Containers of a simulated node write; files rotate, containers restart, pods come and go, namespaces
move to other teams. The kubelet, the API server and the push endpoint fail at random, from a seed,
and kmproxy is ended and killed. Every line must come under a team of its time, in the order of its
container. It may come twice only if the first push was stored and not answered, or was the last one
before a kill. At the end none may be missing: files are removed only once their lines have come.
kmproxy may count such a file as `unseen`, if no list of pods has shown its end, and as `deleted`, if
the push of its last lines was not acknowledged when kmproxy ended.

    python -m tests.support.soak_logs --seconds 600 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.kubelet_faults import Fault
from kmproxy.simulator.logs import SimLogs
from tests.support.loki import arguments, shipping
from tests.support.soak import Truth, descriptors, rss

NAMESPACES = ("shop", "blog", "bank", "mail")
PATH = "/loki/api/v1/push"
RATE = 500  # lines a second, of all containers
PODS = 10
TROUBLE, PEACE = 30.0, 30.0  # seconds in turn, with and without faults of the API server
MEMORY = 120 << 20  # bytes of RSS at most: --max-buffer-bytes and what the process itself takes
DESCRIPTORS = 60
END = 180.0  # seconds that all lines may take at the end: back-off is a minute at most
REFUSALS = (401, 403, 404, 408, 429, 500, 502, 503, 504)
KUBELET = (
    (Fault.STATUS, {"status": 500}),
    (Fault.STATUS, {"status": 503}),
    (Fault.DISCONNECT, {}),
    (Fault.HTML, {}),
    (Fault.BODY, {"body": b"x" * 3_000_000, "content_type": "text/plain"}),
    (Fault.CUT_CHUNKED, {"after": 0}),
    (Fault.NO_FRAMING, {}),
    (Fault.HANG_BEFORE_HEADERS, {}),
    (Fault.CUT_CONTENT_LENGTH, {}),
    (Fault.CLOSE_AFTER, {}),
)


@dataclass
class Written:
    """A line: when and by whom it was written, and how many times it has come."""

    container: int
    number: int
    at: float
    came: int = 0


@dataclass
class Push:
    """A push that was stored: its texts, and whether its answer was sent."""

    texts: list[str]
    process: int
    answered: bool = False


class Endpoint:
    """A stand-in of Loki that fails as it is told to. It hands each stored push on."""

    def __init__(self, store):
        self.store = store
        self.mood = "well"
        self.pace = None  # bytes of JSON a second that it takes
        self.port = 0
        self._runner = None
        self._turn = asyncio.Lock()

    @property
    def url(self):
        """The URL of the push endpoint."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def start(self):
        """Listen, again on the same port."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post(PATH, self._push)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        """Refuse connections."""
        await self._runner.cleanup()

    async def _push(self, request):
        body = await request.read()
        document = json.loads(body)
        if self.pace:
            async with self._turn:
                await asyncio.sleep(len(body) / self.pace)
        mood = self.mood if document["streams"] else "well"
        if mood == "refuse":
            status = random.choice(REFUSALS)
            head = {"Retry-After": "1"} if status == 429 else {}
            return web.Response(status=status, text="not now", headers=head)
        if mood == "drop":
            request.transport.abort()
            return web.Response(status=204)
        if mood == "hang":
            await asyncio.sleep(3)
            request.transport.abort()
            return web.Response(status=204)
        push = self.store(document["streams"], int(request.query["process"]))
        if mood == "store and drop":
            request.transport.abort()
        elif mood == "store and refuse":
            return web.Response(status=500, text="stored, perhaps")
        else:
            push.answered = not request.transport.is_closing()
        return web.Response(status=204)


class LogSoak:
    """One run: the node, kmproxy, the faults in effect, and the lines received."""

    def __init__(self, seed, directory):
        self.random = random.Random(seed)
        self.directory = directory
        self.truth = Truth()
        self.faults = Counter()
        self.problems = []
        self.written = {}  # text -> Written
        self.left = 0  # lines that have not come
        self.pushes = []
        self.copies = defaultdict(list)  # text -> the pushes that brought it
        self.highest = defaultdict(lambda: -1)  # container -> the number of its last new line
        self.numbers = Counter()
        self.serial = self.process = 0
        self.ended = {}  # process -> how it was ended
        self.gaps = {}  # (process, reason) -> the counter of lost lines
        self.peak = self.most = 0
        self.waiting = defaultdict(int)  # container -> its lines that have not come
        self.text = ""

    async def run(self, seconds, say):
        """Break and check for this long; returns the problems found."""
        async with AsyncExitStack() as stack:
            teams = {name: {"team": "team-0"} for name in NAMESPACES}
            self.cluster = await stack.enter_async_context(SimCluster(["node-a"], teams))
            self.cluster.api.bookmark_interval = 1.0
            self.cluster.api.allow("get", "nodes/log")
            for name in NAMESPACES:
                self.truth.set(name, "team-0", 0.0)
            self.logs = stack.enter_context(SimLogs(self.directory / "log", max_bytes=200_000))
            self.kubelet = self.cluster.kubelets["node-a"]
            self.kubelet.logs = self.logs
            self.pods = [self._pod() for _ in range(PODS)]
            self.endpoint = Endpoint(self._store)
            await self.endpoint.start()
            stack.push_async_callback(self.endpoint.stop)
            self.session = await stack.enter_async_context(aiohttp.ClientSession())
            self.began = time.monotonic()
            end = self.began + seconds
            shipping = asyncio.create_task(self._ship(end))
            works = (self._write, self._change, self._break, self._break_endpoint, self._move)
            await asyncio.gather(
                *(self._until(end, work) for work in works), self._until(end, self._report, say)
            )
            self.cluster.api.recover()
            self.kubelet.recover()
            self.endpoint.mood = "well"
            with suppress(TimeoutError):
                async with asyncio.timeout(END):
                    while self.left and not shipping.done():  # noqa: ASYNC110 - lines come from elsewhere
                        await asyncio.sleep(0.2)
            if self.left:
                await self._explain(say)
            await asyncio.sleep(2)
            self.done = True
            await shipping
        self._judge()
        return self.problems

    done = False

    def _pod(self):
        self.serial += 1
        namespace = self.random.choice(NAMESPACES)
        return self.logs.start(namespace, f"pod-{self.serial}", ["app", "sidecar"])

    # kmproxy

    async def _ship(self, end):
        """Run kmproxy; end or kill it now and then. At the end it ends by itself."""
        environment, flags = arguments(self.cluster, self.directory, self.endpoint)
        flags += ["--max-buffer-bytes=8MiB", "--batch-bytes=512KiB"]
        urls = flags.index(f"--loki-url={self.endpoint.url}")
        while not self.done:
            self.process += 1
            # A push of a process that was killed may arrive when the next one runs.
            flags[urls] = f"--loki-url={self.endpoint.url}?process={self.process}"
            async with shipping(environment, flags) as (process, (page, telemetry)):
                self.page = page
                until = time.monotonic() + self.random.uniform(10, 40)
                while not self.done and (time.monotonic() < until or time.monotonic() > end):
                    await self._weigh(process, telemetry)
                    await asyncio.sleep(0.5)
                    if process.returncode is not None:
                        self.problems.append(f"ended with status {process.returncode}")
                        break
                how = (
                    signal.SIGTERM
                    if self.done
                    else self.random.choice([signal.SIGTERM, signal.SIGKILL])
                )
                self.ended[self.process] = how
                self.faults[f"kmproxy {how.name}"] += 1
                await self._weigh(process, telemetry)
                with suppress(ProcessLookupError):
                    process.send_signal(how)
                async with asyncio.timeout(60):
                    status = await process.wait()
                if how == signal.SIGTERM and status:
                    self.problems.append(f"ended with status {status} after SIGTERM")
            said = "".join(process.said)
            self.text += f"process {self.process}:\n{said}"

    async def _weigh(self, process, telemetry):
        with suppress(aiohttp.ClientError, OSError, TypeError):
            self.peak = max(self.peak, rss(process.pid))
            self.most = max(self.most, descriptors(process.pid))
            async with self.session.get(f"http://127.0.0.1:{telemetry}/metrics") as response:
                text = await response.text()
            for name, value in re.findall(
                r"^kmproxy_log_lines_lost_total(\S+) (\S+)$", text, re.MULTILINE
            ):
                if float(value):
                    self.gaps[self.process, name] = float(value)

    async def _explain(self, say):
        """Print kmproxy's own pages while lines are missing."""
        with suppress(aiohttp.ClientError, OSError):
            async with self.session.get(f"http://127.0.0.1:{self.page}/targets") as response:
                say(f"/targets: {await response.text()}")

    # lines

    async def _write(self):
        for _ in range(RATE // 50):
            pod = self.random.choice(self.pods)
            container = pod.containers[self.random.choice(["app", "sidecar"])]
            if not container.running:
                continue
            key = id(container)
            number = self.numbers[key]
            self.numbers[key] += 1
            length = 40_000 if self.random.random() < 0.0005 else self.random.randrange(200)
            text = f"{pod.name} {container.name} {number} {'x' * length}"
            self.written[text] = Written(key, number, time.monotonic())
            self.left += 1
            self.waiting[key] += 1
            container.write(text, self.random.choice(["stdout", "stderr"]))
        await asyncio.sleep(0.02)

    def _store(self, streams, process):
        now = time.monotonic()
        push = Push([], process)
        self.pushes.append(push)
        for stream in streams:
            labels = stream["stream"]
            for _, text, *_ in sorted(stream["values"], key=lambda each: int(each[0])):
                push.texts.append(text)
                if (line := self.written.get(text)) is None:
                    self.problems.append(f"never written: {text[:60]!r}")
                    continue
                allowed = self.truth.allowed(labels["namespace"], line.at, now)
                if labels.get("team") not in allowed:
                    self.problems.append(f"{text[:40]} as {labels.get('team')}, allowed {allowed}")
                line.came += 1
                self.copies[text].append(push)
                if line.came == 1:
                    self.left -= 1
                    self.waiting[line.container] -= 1
        for text in push.texts:  # streams of stdout and stderr: in order from push to push
            line = self.written.get(text)
            if line is not None and line.came == 1 and line.number < self.highest[line.container]:
                self.problems.append(f"out of order: {text[:40]}")
        for text in push.texts:
            if (line := self.written.get(text)) is not None:
                last = self.highest[line.container]
                self.highest[line.container] = max(last, line.number)
        return push

    # what changes and fails

    async def _move(self):
        await asyncio.sleep(self.random.uniform(0.1, 2))
        self.serial += 1
        namespace = self.random.choice(NAMESPACES)
        team = f"team-{self.serial}"
        self.truth.set(namespace, team, time.monotonic())
        self.cluster.api.namespaces.apply(namespace, {"team": team})

    async def _change(self):
        """Rotate, restart, delete: of containers whose lines have all come, so none may be lost."""
        await asyncio.sleep(self.random.uniform(0.2, 1.5))
        pod = self.random.choice(self.pods)
        what = self.random.choice(["rotate", "rotate late", "restart", "delete"])
        container = self.random.choice([*pod.containers.values()])
        if what == "delete":
            self.pods.remove(pod)
            self.pods.append(self._pod())
            self.logs.delete(pod)
            await asyncio.sleep(self.random.uniform(0, 0.5))
            for each in pod.containers.values():
                each.stop()
            asyncio.create_task(self._remove(pod))  # noqa: RUF006 - ends with the run
        elif self.waiting[id(container)] > 100 or not container.running:
            return
        elif what == "restart":
            if (container.instance and not self.waiting[id(container)]) or not container.instance:
                container.restart()
        elif what == "rotate":
            container.rotate()
        else:
            container.rotate(reopen=False)
            await asyncio.sleep(0.3)
            container.reopen()
        self.faults[what] += 1

    async def _remove(self, pod):
        """The kubelet removes the files, here only once their lines have come."""
        while any(self.waiting[id(each)] for each in pod.containers.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        self.logs.remove(pod)

    async def _break(self):
        await asyncio.sleep(self.random.uniform(0.5, 3))
        if (time.monotonic() - self.began) % (
            TROUBLE + PEACE
        ) < TROUBLE and self.random.random() < 0.3:
            await self._break_api()
            return
        fault, needs = self.random.choice(KUBELET)
        self.kubelet.recover()  # the pods are asked for seldom: else the next ten lists would fail
        self.kubelet.fail(
            fault,
            times=self.random.randint(1, 4),
            path=self.random.choice(["/logs", "/pods"]),
            **needs,
        )
        self.faults[f"kubelet {fault.name}"] += 1

    async def _break_api(self):
        api = self.cluster.api
        what = self.random.choice(["rotate token", "break watches", "expire", "away"])
        self.truth.trouble(time.monotonic())
        match what:
            case "rotate token":
                self.cluster.rotate_token()
                self.cluster.write_service_account(self.directory / "sa")
            case "break watches":
                api.break_watches()
            case "expire":
                api.expire_history()
                api.break_watches()
            case "away":
                await api.stop()
                await asyncio.sleep(self.random.uniform(0.1, 3))
                await api.start()
        self.truth.trouble(time.monotonic())
        self.faults[f"API server {what}"] += 1

    async def _break_endpoint(self):
        await asyncio.sleep(self.random.uniform(2, 8))
        moods = ["refuse", "drop", "hang", "store and drop", "store and refuse", "away"]
        mood = self.random.choice(moods)
        self.faults[f"endpoint {mood}"] += 1
        if mood == "away":
            await self.endpoint.stop()
        else:
            self.endpoint.mood = mood
        await asyncio.sleep(self.random.uniform(0.2, 4))
        if mood == "away":
            await self.endpoint.start()
        self.endpoint.mood = "well"

    # checks

    def _judge(self):
        missing = [text for text, line in self.written.items() if not line.came]
        if missing:
            what = f"{len(missing)} lines are missing, such as {missing[0][:60]!r}"
            self.problems.append(f"{what}; counted: {self.gaps}")
        last = {push.process: push for push in self.pushes}
        self.repeated = 0
        for text, pushes in self.copies.items():
            for push in pushes[:-1]:
                self.repeated += 1
                killed = (
                    self.ended.get(push.process) == signal.SIGKILL and push is last[push.process]
                )
                if push.answered and not killed:
                    self.problems.append(f"twice: {text[:60]!r}, of process {push.process}")
        if self.peak > MEMORY:
            self.problems.append(f"{self.peak} bytes of RSS")
        if self.most > DESCRIPTORS:
            self.problems.append(f"{self.most} descriptors")
        if "Traceback" in self.text:
            self.problems.append(
                "a traceback in the log: " + self.text[self.text.index("Traceback") :][:2000]
            )
        if self.cluster.token in self.text:
            self.problems.append("a token in the log")

    async def _until(self, end, work, *passed):
        while time.monotonic() < end:
            await work(*passed)

    async def _report(self, say):
        await asyncio.sleep(10)
        say(f"{sum(self.faults.values())} faults and changes; {len(self.written)} lines, {self.left} under way; "
            f"{self.process} processes, RSS {self.peak / 2**20:.0f} MiB at most; {len(self.problems)} problems")  # fmt: skip
        if self.problems:
            say(f"WRONG: {self.problems[-1]}")


def main():
    """Run a soak; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parsed = parser.parse_args()
    logging.disable()  # the simulator tells of every client that has left it
    began = time.monotonic()

    def say(line):
        print(f"{time.monotonic() - began:6.0f} s: {line}", flush=True)

    say(f"seed {parsed.seed}, {parsed.seconds:g} s")
    with tempfile.TemporaryDirectory() as directory:
        soak = LogSoak(parsed.seed, Path(directory))
        problems = asyncio.run(soak.run(parsed.seconds, say))
    say(", ".join(f"{count} {what}" for what, count in soak.faults.most_common()))
    if problems:
        say(f"kmproxy said: ...{soak.text[-4000:]}")
    for problem in problems[:20]:
        say(f"WRONG: {problem}")
    say(f"gaps that were counted: {soak.gaps or 'none'}")
    say(f"{len(soak.written)} lines, {soak.repeated} of them again where they may, "
        f"{len(problems)} problems")  # fmt: skip
    return 1 if problems or not soak.written else 0


if __name__ == "__main__":
    sys.exit(main())
