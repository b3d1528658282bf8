"""The real programs as processes: Prometheus, Alertmanager, and the daemon as its manifests run it.

Knows how each is started from the files that ship, awaited, asked and stopped. Addresses are put
in the place of addresses, and seconds in that of minutes; nothing else of the files is changed.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from kmproxy.simobjects import running
from tests.kustomize import build

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
PATIENCE = 90.0
"""Seconds that a condition may take; most take a few."""
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"


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


def which(name):
    """Where a program is: beside this Python or on the PATH; None if it is nowhere."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which(name, path=beside)


async def eventually(check, seconds=PATIENCE):
    """Do an async check until it asserts nothing false; returns what it returns."""
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
        """What answers 200 when it is ready."""
        return f"{self.url}/-/ready"


class Prometheus(Program):
    """A Prometheus of a configuration, and what it says of what it has stored."""

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
            "prometheus",
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

    async def scraped(self, job, times):
        """Wait until each target of a job has been scraped so many times from now on."""
        since = datetime.now(UTC)
        seen = {}

        async def check():
            for each in (await self.api("targets", state="active"))["activeTargets"]:
                if each["scrapePool"] == job:
                    moments = seen.setdefault(each["scrapeUrl"], set())
                    if _moment(each["lastScrape"]) > since:
                        moments.add(each["lastScrape"])
            assert seen
            assert all(len(moments) >= times for moments in seen.values()), seen

        await eventually(check)


def _moment(text):
    """A time of Prometheus' API, which has nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))


class Discovery(Program):
    """Prometheus' Kubernetes discovery for a configuration: Debian builds Prometheus without.

    It keeps what it finds in files, from which Prometheus takes it with every label.
    """

    @classmethod
    def of(cls, session, directory, config):
        """The process for the jobs of a configuration."""
        path = directory / "discovery.yml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        log = directory / "discovery.log"
        made = cls(session, log, "", which("prometheus-discovery"), path, directory)
        made.directory = directory
        return made

    def in_files(self, config):
        """The configuration with the files in the place of the API server."""
        config = copy.deepcopy(config)
        for job in config["scrape_configs"]:
            if job.pop("kubernetes_sd_configs", None) is not None:
                file = self.directory / f"{job['job_name']}.json"
                job["file_sd_configs"] = [{"files": [str(file)], "refresh_interval": "1s"}]
        return config


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


class Daemon(Program):
    """A pod of the manifests: its object is in the API, its container is this process."""

    @property
    def ready_url(self):
        """Its own readiness, as the kubelet asks it."""
        return f"http://{self.telemetry}/readyz"


class Stage:
    """A simulated cluster with everything else real: what the tests of the proof play on."""

    def __init__(self, cluster, directory, session, stack):
        self.cluster = cluster
        self.directory = directory
        self.session = session
        self.stack = stack
        self.ports = {8080: free_port(), 8081: free_port()}
        self.daemons = []
        self._made = 0

    @property
    def address(self):
        """Where the first of the pods serves the enriched metrics: in the Service's place."""
        return self.daemons[0].address

    async def deploy(self, overlay, *flags, components=(), ready=True):
        """Run the pods of an overlay: DaemonSets on every node, Deployments on the first ones."""
        folders = [MANIFESTS / "components" / name for name in components]
        objects = [self._placed(each) for each in build(MANIFESTS / "overlays" / overlay, *folders)]
        self.cluster.write_service_account(self.directory / "sa")
        nodes = list(self.cluster.kubelets)
        for each in objects:
            if each["kind"] == "Namespace":
                self.cluster.api.namespaces.put(each)
            if each["kind"] == "Service":
                self.cluster.api.services.put("services", each)
            if each["kind"] in ("DaemonSet", "Deployment"):
                for node in nodes[: each["spec"].get("replicas", len(nodes))]:
                    await self._run(each, node, flags)
        for daemon in self.daemons:
            self.stack.push_async_callback(daemon.stop)
            await daemon.start(ready=ready)

    def _placed(self, value):
        """A manifest with free ports for the ports it names."""
        if isinstance(value, dict):
            return {key: self._placed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._placed(each) for each in value]
        if isinstance(value, int):
            return self.ports.get(value, value)
        return str(self.ports[int(value)]) if value in ("8080", "8081") else value

    async def _run(self, workload, node, flags):
        number = len(self.daemons) + 1
        template, kubelet = workload["spec"]["template"], self.cluster.kubelets[node]
        pod = f"127.1.0.{number}"
        self.cluster.api.services.put(
            "pods",
            {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {
                    **template["metadata"],
                    "name": f"{workload['metadata']['name']}-{number}",
                    "namespace": workload["metadata"]["namespace"],
                },
                "spec": template["spec"] | {"nodeName": node},
                "status": running(kubelet.host, pod, "2026-01-01T00:00:00Z"),
            },
        )
        (container,) = template["spec"]["containers"]
        places = {
            "$(NODE_IP)": kubelet.host,
            "$(NODE_NAME)": node,
            "https://kubernetes.default.svc": self.cluster.api.url,
        }
        arguments = list(container["args"])
        for placeholder, place in places.items():
            arguments = [each.replace(placeholder, place) for each in arguments]
        if not any(each.startswith("--kube-apiserver") for each in arguments):
            arguments.append(f"--node-port={kubelet.port}")
        metrics, telemetry = (f"{pod}:{port}" for port in self.ports.values())
        api = urlsplit(self.cluster.api.url)
        daemon = Daemon(
            self.session,
            self.directory / f"kmproxy-{number}.log",
            f"http://{metrics}",
            *(sys.executable, "-m", "kmproxy", "serve", *arguments),
            f"--listen={metrics}",
            f"--telemetry-listen={telemetry}",
            f"--service-account-dir={self.directory / 'sa'}",
            *flags,
            environment={
                **os.environ,
                "KUBERNETES_SERVICE_HOST": api.hostname,
                "KUBERNETES_SERVICE_PORT": str(api.port),
            },
        )
        daemon.address, daemon.telemetry = metrics, telemetry
        self.daemons.append(daemon)

    def kubeconfig(self):
        """The kubeconfig of Prometheus: its own service account, with what its role allows."""
        path = self.directory / "prometheus.kubeconfig"
        if not path.exists():
            self.cluster.write_kubeconfig(path)
            document = json.loads(path.read_text("utf-8"))
            (user,) = document["users"]
            user["user"] = {"token": self.token()}
            path.write_text(json.dumps(document), "utf-8")
        return path

    def token(self):
        """A token of Prometheus' service account."""
        for resource in ("nodes", "pods", "services", "endpoints", "endpointslices"):
            for verb in ("get", "list", "watch"):
                self.cluster.api.allow(verb, resource, user=PROMETHEUS)
        self.cluster.api.allow("get", "nodes/metrics", user=PROMETHEUS)
        return self.cluster.authority.issue(PROMETHEUS)

    def shipped(self, name, *, address=None, alertmanager="127.0.0.1:1"):
        """A configuration of manifests/prometheus with our addresses, and seconds for minutes."""
        text = (MANIFESTS / "prometheus" / f"{name}.yml").read_text("utf-8")
        (port,) = {each.port for each in self.cluster.kubelets.values()}
        for there, here in (
            ("kmproxy.kmproxy-system.svc:8080", address or self.address),
            ("kmproxy-local.kmproxy-system.svc:8080", address or self.address),
            ("alertmanager.monitoring.svc:9093", alertmanager),
            (":10250", f":{port}"),
        ):
            text = text.replace(there, here)
        assert ".svc" not in re.sub("#.*", "", text), "an address that is not known here"
        config = yaml.safe_load(text)
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            for discovery in job.get("kubernetes_sd_configs", ()):
                discovery["kubeconfig_file"] = str(self.kubeconfig())
        return config

    def direct(self):
        """A configuration that scrapes the kubelets themselves, as kube-prometheus-stack does."""
        (self.directory / "ca.crt").write_bytes(self.cluster.ca_pem)
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "kubelet",
                    "scheme": "https",
                    "metrics_path": "/metrics/cadvisor",
                    "honor_labels": True,
                    "tls_config": {"ca_file": str(self.directory / "ca.crt")},
                    "authorization": {"credentials": self.token()},
                    "kubernetes_sd_configs": [
                        {"role": "node", "kubeconfig_file": str(self.kubeconfig())}
                    ],
                    "relabel_configs": [
                        {
                            "source_labels": ["__metrics_path__"],
                            "target_label": "metrics_path",
                        },
                        {
                            "source_labels": ["__meta_kubernetes_node_name"],
                            "target_label": "node",
                        },
                        # In kube-prometheus-stack the target is an endpoint, whose address it is.
                        {"source_labels": ["__address__"], "target_label": "instance"},
                    ],
                }
            ],
        }

    async def prometheus(self, config, *flags):
        """Run a Prometheus until the end of the test, and Prometheus' discovery beside it."""
        self._made += 1
        directory = self.directory / f"prometheus-{self._made}"
        (directory / "rules").mkdir(parents=True)
        for path in (MANIFESTS / "components" / "rules").glob("*.rules.yaml"):
            sooner = re.sub("for: 1m$", "for: 1s", path.read_text("utf-8"), flags=re.MULTILINE)
            (directory / "rules" / path.name).write_text(sooner, "utf-8")
        if any("kubernetes_sd_configs" in job for job in config["scrape_configs"]):
            discovery = Discovery.of(self.session, directory, config)
            self.stack.push_async_callback(discovery.stop)
            await discovery.start(ready=False)
            config = discovery.in_files(config)
        made = Prometheus.of(self.session, directory, config, *flags)
        self.stack.push_async_callback(made.stop)
        await made.start()
        return made

    async def alertmanager(self):
        """Run the shipped Alertmanager, with receivers that remember; returns both."""
        receivers = Receivers()
        await receivers.start(self.stack)
        text = (MANIFESTS / "alertmanager" / "alertmanager.yml").read_text("utf-8")
        config = yaml.safe_load(text.replace("http://alerts.monitoring.svc", receivers.url))
        config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        made = Alertmanager.of(self.session, self.directory / "alertmanager", config)
        self.stack.push_async_callback(made.stop)
        await made.start()
        return made, receivers
