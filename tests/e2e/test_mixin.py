"""The kubernetes-mixin's cAdvisor rules give the same values with and without kmproxy."""

from __future__ import annotations

import asyncio
import time

import pytest
import yaml
from aiohttp import web

from kmproxy.simulator.cadvisor import HOUSEKEEPING
from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

CADVISOR = 'job="kubelet", metrics_path="/metrics/cadvisor", image!=""'
PODS = 'topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))'
NODE = f"* on (cluster, namespace, pod) group_left (node) {PODS}"
BY = "sum by (cluster, namespace, pod, container)"
PREFIX = "node_namespace_pod_container"
RULES = {
    f"{PREFIX}:container_cpu_usage_seconds_total:{name}": (
        f"{BY} ({function}(container_cpu_usage_seconds_total{{{CADVISOR}}}[5m])) {NODE}"
    )
    for name, function in (("sum_rate5m", "rate"), ("sum_irate", "irate"))
} | {
    f"{PREFIX}:{metric}": f"{metric}{{{CADVISOR}}} {NODE}"
    for metric in (
        "container_memory_working_set_bytes",
        "container_memory_rss",
        "container_memory_cache",
        "container_memory_swap",
    )
}
"""The mixin's expressions for cAdvisor's metrics, by the name of the record."""


async def kube_state_metrics(stage):
    """Serves the metric that the rules join with; returns its address."""
    lines = [
        f'kube_pod_info{{namespace="{each["metadata"]["namespace"]}",pod="{each["metadata"]["name"]}",node="{each["spec"]["nodeName"]}"}} 1\n'
        for each in stage.cluster.api.store.objects["pods"].values()
    ]

    async def metrics(_):
        return web.Response(text="".join(lines))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stage.stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"127.0.0.1:{site.port}"


async def test_the_mixins_rules(stage):
    """In wiring 2 every series of every record has the same value, and a team."""
    await stage.deploy("daemonset")
    address = await kube_state_metrics(stage)
    rules = stage.directory / "mixin.yaml"
    group = [{"record": record, "expr": expression} for record, expression in RULES.items()]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "mixin", "rules": group}]}), "utf-8")
    configs = [stage.shipped("instead"), stage.direct()]
    for config in configs:
        config["rule_files"] = [str(rules)]
        config["scrape_configs"][0]["honor_timestamps"] = True  # so that both have the same times
        config["scrape_configs"].append(
            {"job_name": "kube-state-metrics", "static_configs": [{"targets": [address]}]}
        )
    start = time.time()
    hold(stage, start)
    through, direct = await asyncio.gather(*(stage.prometheus(each) for each in configs))
    for step in range(4):
        hold(stage, start + step * HOUSEKEEPING)
        await asyncio.gather(through.scraped("kubelet-cadvisor", 2), direct.scraped("kubelet", 2))
    at = start + step * HOUSEKEEPING
    containers = sum(
        len(pod.containers)
        for kubelet in stage.cluster.kubelets.values()
        for pod in kubelet.node.pods
    )
    teams = set()
    for record, expression in RULES.items():
        enriched = await through.query(expression, at)
        plain = await direct.query(expression, at)
        assert len(plain) >= containers, record
        teams |= {labels.pop("team", None) for labels, _ in enriched}
        assert by_labels(enriched) == by_labels(plain), record
    assert {"frontend", "payments"} <= teams

    async def recorded():
        for record in RULES:
            for prometheus in (through, direct):
                assert len(await prometheus.query(record)) >= containers, record

    await eventually(recorded)


def hold(stage, moment):
    """Stops the kubelets' time, so both Prometheus get the same samples."""
    for kubelet in stage.cluster.kubelets.values():
        kubelet.clock = lambda: moment


def by_labels(vector):
    """The values of an instant vector by their labels, which are unique."""
    found = {tuple(sorted(labels.items())): value for labels, value in vector}
    assert len(found) == len(vector)
    return found
