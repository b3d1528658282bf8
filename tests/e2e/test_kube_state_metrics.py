"""kube-state-metrics behind kmproxy: an alert without a join goes to the team of the namespace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiohttp import web

from kmproxy.simulator.state_metrics import CONTENT_TYPE, state_metrics, usual_state
from tests.support.programs import eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.program("prometheus", "prometheus-alertmanager"),
]

SERVICE = "http://kube-state-metrics.monitoring.svc:8080"
TEAMS = {"frontend-service1": "frontend", "frontend-service2": "frontend", "payments": "payments"}


class Exporter:
    """A server with the exposition of a cluster's state."""

    def __init__(self, state):
        self.state = state
        self.asked = []

    async def start(self, stack):
        """Serve it until the end of the test. Returns its URL."""
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _answer(self, request):
        self.asked.append(request.headers)
        return web.Response(
            body=b"".join(state_metrics(self.state)), headers={"Content-Type": CONTENT_TYPE}
        )

    def heal(self):
        """Let all pods and Deployments be well."""
        pods = [
            replace(pod, ready=True, restarts=0, waiting="", terminated="")
            for pod in self.state.pods
        ]
        whole = [replace(each, available=each.replicas) for each in self.state.deployments]
        jobs = [replace(each, failed=False) for each in self.state.jobs]
        self.state = replace(self.state, pods=pods, deployments=whole, jobs=jobs)

    def crash(self, namespace):
        """Let the first pod of a namespace wait for its next start. Returns the pod's name."""
        at, pod = next(
            (at, pod) for at, pod in enumerate(self.state.pods) if pod.namespace == namespace
        )
        pods = list(self.state.pods)
        pods[at] = replace(pod, waiting="CrashLoopBackOff", ready=False, restarts=7)
        self.state = replace(self.state, pods=pods)
        return pod.name


@pytest.mark.parametrize(
    ("wiring", "job"),
    [("instead", "kube-state-metrics"), ("beside", "kmproxy-kube-state-metrics")],
)
async def test_a_crash_loop(stage, wiring, job):
    """The series have the exporter's job and instance. The alert reaches the team's webhook."""
    space = "frontend-service2"
    exporter = Exporter(usual_state({each: {} for each in TEAMS}))
    exporter.heal()
    url = await exporter.start(stage.stack)
    stage.exporters[SERVICE] = url
    alertmanager, receivers = await stage.alertmanager()
    await stage.deploy("daemonset", components=("kube-state-metrics",))
    config = stage.shipped(wiring, alertmanager=alertmanager.url.removeprefix("http://"))
    for each in config["scrape_configs"]:
        for discovery in each.get("http_sd_configs", ()):
            discovery["refresh_interval"] = "1s"
    prometheus = await stage.prometheus(config, sooner="15m")
    await prometheus.scraped("kmproxy-upstreams", 2)
    owners = {
        (labels["namespace"], labels["team"])
        for labels, _ in await prometheus.query("count by (namespace, team) (kube_pod_info)")
    }
    assert owners == set(TEAMS.items())
    ((labels, count),) = await prometheus.query("count by (job, instance) (kube_pod_info)")
    assert labels == {"job": job, "instance": url.removeprefix("http://")}
    assert count == len(exporter.state.pods)
    assert receivers.alerts == []

    pod = exporter.crash(space)
    alert = {"alertname": "KubePodCrashLooping", "namespace": space, "pod": pod}

    async def told():
        assert receivers.firing(team="frontend", **alert), receivers.alerts

    await eventually(told)
    assert receivers.firing() == {"frontend-team"}
    assert not any("Authorization" in each for each in exporter.asked)
