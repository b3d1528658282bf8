"""The real programs as processes: Prometheus, Alertmanager.

Knows how each is started, awaited, asked and stopped; which configuration it is given is
`stage`'s to know.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

PATIENCE = 90.0
"""Seconds that a condition may take; most take a few."""


def free_port():
    """A port that nobody has on any address, and that no connection is given by itself."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
TOOLS = Path(os.environ.get("CLUSTER_TOOLS") or CACHE / "kmproxy" / "cluster-tools")
"""Where `make cluster-tools` puts an API server, etcd and Prometheus, built from their sources."""


def which(name):
    """Where a program is: beside this Python, in `TOOLS` or on the PATH; None if it is nowhere.

    Prometheus is the one in `TOOLS` or none: Debian builds it without Kubernetes discovery.
    """
    places = [str(Path(sys.executable).parent), str(TOOLS), os.environ.get("PATH", "")]
    if name == "prometheus":
        places = [str(TOOLS)]
    return shutil.which(name, path=os.pathsep.join(places))


def faulty_python():
    """The path and version of a Python 3.11 before 3.11.5; None if there is none.

    Debian 12 has one.
    """
    ask = "import sys; print(*sys.version_info[:3], sep='.')"
    for path in ("/usr/bin/python3", "/usr/bin/python3.11", shutil.which("python3.11")):
        if path is None or not Path(path).exists():
            continue
        done = subprocess.run(
            [path, "-c", ask], capture_output=True, text=True, check=False, timeout=60
        )
        version = done.stdout.strip()
        if done.returncode == 0 and (3, 11) <= tuple(map(int, version.split("."))) < (3, 11, 5):
            return path, version
    return None


async def eventually(check, seconds=PATIENCE):
    """Repeat an async check until it raises nothing. Returns its result."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        try:
            return await check()
        except (AssertionError, aiohttp.ClientError, OSError):
            if loop.time() > end:
                raise
        await asyncio.sleep(0.2)


class Program:
    """A process with its output in a file; at the end it is stopped, at the latest killed."""

    def __init__(self, session, log, url, *command, environment=None):
        self.session = session
        self.log = log
        self.url = url
        self._command = [str(each) for each in command]
        self._environment = environment
        self._process = None

    async def start(self, *, ready=True):
        """Run, and wait until it says that it is ready."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env=self._environment
            )
        if ready:
            await eventually(self._ready)

    async def stop(self, how=signal.SIGTERM):
        """End it, and wait for its end."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _ready(self):
        if self._process.returncode is not None:
            raise RuntimeError(f"{self._command[0]} has ended: {self.log.read_text()[-2000:]}")
        async with self.session.get(self.ready_url) as response:
            assert response.status == 200, await response.text()

    @property
    def ready_url(self):
        """The URL that answers 200 once the program is ready."""
        return f"{self.url}/-/ready"


class Prometheus(Program):
    """A Prometheus with a configuration, and queries of its stored series."""

    @classmethod
    def of(cls, session, directory, config, *flags):
        """The process for a configuration; its data stay when it is restarted."""
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        port = free_port()
        return cls(
            session,
            directory / "prometheus.log",
            f"http://127.0.0.1:{port}",
            which("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            *flags,
        )

    async def api(self, path, **params):
        """The data of an answer of its API."""
        async with self.session.get(f"{self.url}/api/v1/{path}", params=params) as response:
            document = await response.json()
        assert document["status"] == "success", document
        return document["data"]

    async def query(self, expression, at=None):
        """The instant vector: pairs of labels and value."""
        params = {} if at is None else {"time": f"{at:.3f}"}
        result = (await self.api("query", query=expression, **params))["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    async def one(self, expression):
        """The value of the only series of an instant vector."""
        ((_, value),) = await self.query(expression)
        return value

    async def history(self, expression, start, end, step=1):
        """The range vector: pairs of labels and points."""
        params = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": step}
        result = (await self.api("query_range", query=expression, **params))["result"]
        return [(each["metric"], each["values"]) for each in result]

    async def up(self, job, count):
        """Wait until `count` targets of a job are up, and there are no others; returns these."""

        async def check():
            targets = (await self.api("targets", state="active"))["activeTargets"]
            found = [each for each in targets if each["scrapePool"] == job]
            health = [(each["scrapeUrl"], each["health"], each["lastError"]) for each in found]
            assert len(found) == count, health
            assert all(each["health"] == "up" for each in found), health
            return found

        return await eventually(check)

    async def scraped(self, job, times, *, well=True):
        """Wait until each target of a job has been scraped so many times from now on.

        A scrape that fails counts only if they need not have gone well.
        """
        since = datetime.now(UTC)
        seen = {}

        async def check():
            for each in (await self.api("targets", state="active"))["activeTargets"]:
                if each["scrapePool"] == job:
                    moments = seen.setdefault(each["scrapeUrl"], set())
                    gone_well = each["health"] == "up"
                    if _moment(each["lastScrape"]) > since and (gone_well or not well):
                        moments.add(each["lastScrape"])
            assert seen
            assert all(len(moments) >= times for moments in seen.values()), seen

        await eventually(check)


def _moment(text):
    """A time of Prometheus' API, which has nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))


class VictoriaLogs(Program):
    """A VictoriaLogs that takes pushes, and its stored lines. Its data outlive a restart."""

    @classmethod
    def of(cls, session, directory):
        """The process with its data in a directory."""
        port = free_port()
        return cls(
            session,
            directory / "victoria-logs.log",
            f"http://127.0.0.1:{port}",
            which("victoria-logs"),
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={directory / 'data'}",
            "-retentionPeriod=100y",
            "-futureRetention=100y",
        )

    @property
    def ready_url(self):
        """A path that answers 200 when it is ready."""
        return f"{self.url}/health"

    @property
    def push_url(self):
        """The push endpoint."""
        return f"{self.url}/insert/loki/api/v1/push"

    async def lines(self, account=0, project=0):
        """Every stored line of a tenant: its fields, each a text."""
        headers = {"AccountID": str(account), "ProjectID": str(project)}
        async with self.session.get(
            f"{self.url}/select/logsql/query", params={"query": "*"}, headers=headers
        ) as response:
            assert response.status == 200, await response.text()
            return [json.loads(each) for each in (await response.read()).splitlines()]


class Alertmanager(Program):
    """An Alertmanager of a configuration."""

    @classmethod
    def of(cls, session, directory, config):
        """The process for a configuration."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        port = free_port()
        return cls(
            session,
            directory / "alertmanager.log",
            f"http://127.0.0.1:{port}",
            "prometheus-alertmanager",
            f"--config.file={path}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        )


class Receivers:
    """The teams' webhooks: an HTTP server that remembers which alerts came under which path."""

    def __init__(self):
        self.alerts = []
        self.url = ""

    async def start(self, stack):
        """Listen until the stack ends."""
        app = web.Application()
        app.router.add_post("/{receiver}", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"

    async def _receive(self, request):
        document = await request.json()
        receiver = request.match_info["receiver"]
        self.alerts += [(receiver, each["status"], each["labels"]) for each in document["alerts"]]
        return web.Response()

    def firing(self, **labels):
        """Which receivers were told that an alert with these labels fires."""
        return {
            receiver
            for receiver, status, found in self.alerts
            if status == "firing" and labels.items() <= found.items()
        }
