"""Applications found by http_sd_configs on kmproxy, as by Prometheus' pod role."""

from __future__ import annotations

import json
import ssl
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from prometheus_client import CollectorRegistry, Counter, make_wsgi_app

from tests.support.pods import container, flat, pod, port
from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOB = "kubernetes-pods"
ADDED = {"__meta_url", "__metrics_path__", "__scheme__", "apart", "job"}
"""Labels of a target that come from its job."""
OURS = ("__meta_kubernetes_namespace_", "team")
"""How the labels begin that a target has beyond those of the pod role."""


class Quiet(WSGIRequestHandler):
    """A handler that logs no line per scrape."""

    def log_message(self, *_):
        pass


class Application:
    """An application that counts orders, and serves its metrics at one path only."""

    def __init__(self, shop, path="/metrics", context=None):
        registry = CollectorRegistry()
        self.orders = Counter("shop_orders", "Orders taken.", ["shop"], registry=registry)
        self.orders.labels(shop).inc(7)
        metrics = make_wsgi_app(registry)

        def serve(environ, start):
            if environ["PATH_INFO"] == path:
                return metrics(environ, start)
            start("404 Not Found", [])
            return [b""]

        self.server = make_server("127.0.0.1", 0, serve, handler_class=Quiet)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def application():
    """A function that starts applications, which end with the test."""
    running = []

    def start(*arguments, **more):
        running.append(Application(*arguments, **more))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def annotated(name, namespace, application, *containers, status=None, **annotations):
    """A Pod object with the usual annotations, whose port is an application's."""
    given = {"scrape": "true", "port": str(application.port)} | annotations
    metadata = {
        "namespace": namespace,
        "annotations": {f"prometheus.io/{key}": value for key, value in given.items() if value},
    }
    listed = list(containers) or [container("web")]
    return pod(name, containers=listed, metadata=metadata, podIP="127.0.0.1", **(status or {}))


def server_context(cluster):
    """TLS by the cluster's authority for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cluster._authorities.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_annotated_applications(stage, application, monkeypatch, tmp_path):
    """They are found by annotations, scraped, and stored with their namespace's team.

    The configuration is the shipped one, with the usual relabelling of kubernetes_sd_configs.
    Then a namespace moves, and a pod is deleted.
    """
    (tmp_path / "ca.crt").write_bytes(stage.cluster.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    ledger = application("ledger", path="/internal/metrics")
    web = application("web", context=server_context(stage.cluster))
    orphan = application("orphan")
    pods = [
        annotated("ledger-0", "payments", ledger, container("web", port(1, "http")), path="/internal/metrics"),
        annotated("web-0", "frontend-service1", web, scheme="https"),
        annotated("orphan-0", "no-team", orphan),
        annotated("unwanted", "payments", orphan, scrape=""),
        annotated("unwilling", "payments", orphan, scrape="false"),
        annotated("done", "payments", orphan, status={"phase": "Succeeded"}),
    ]  # fmt: skip
    stage.cluster.kubelets["node-a"].pods = pods
    stage.cluster.kubelets["node-b"].pods = []
    await stage.deploy("daemonset", components=["discovery"])
    # kmproxy is a pod of that node as well, annotated for who wants it so.
    ours = stage.cluster.api.store.objects["pods"]["kmproxy-system/kmproxy-1"]
    assert ours["metadata"]["annotations"]["prometheus.io/path"] == "/metrics/cadvisor"
    pods.append(ours)
    async with stage.session.get(
        f"{stage.daemons[0].url}/sd/pods?namespace=kmproxy-system"
    ) as response:
        assert len(flat(await response.read())) == 2
    config = stage.shipped("http-sd", address=stage.daemons[0].address)
    for each in config["scrape_configs"]:
        for discovery in each["http_sd_configs"]:
            discovery["refresh_interval"] = "1s"
    prometheus = await stage.prometheus(config)
    targets = await prometheus.up(JOB, 3)
    assert {each["scrapeUrl"] for each in targets} == {
        f"http://127.0.0.1:{ledger.port}/internal/metrics",
        f"https://127.0.0.1:{web.port}/metrics",
        f"http://127.0.0.1:{orphan.port}/metrics",
    }

    def expected(name, namespace, shop, listener, **team):
        return {
            "__name__": "shop_orders_total",
            "job": JOB,
            "instance": f"127.0.0.1:{listener.port}",
            "namespace": namespace,
            "pod": name,
            "node": "node-a",
            "shop": shop,
        } | team

    async def stored():
        found = await prometheus.query("shop_orders_total")
        assert sorted((labels for labels, _ in found), key=lambda labels: labels["shop"]) == [
            expected("ledger-0", "payments", "ledger", ledger, team="payments"),
            expected("orphan-0", "no-team", "orphan", orphan),
            expected("web-0", "frontend-service1", "web", web, team="frontend"),
        ]
        assert {value for _, value in found} == {7.0}

    await eventually(stored)
    stage.cluster.api.namespaces.apply("payments", {"team": "treasury"})

    async def moved():
        found = await prometheus.query('shop_orders_total{shop="ledger"}')
        assert [labels["team"] for labels, _ in found] == ["treasury"]

    await eventually(moved)
    pods.pop(0)
    await prometheus.up(JOB, 2)


SHAPES = [
    pod("plain"),
    pod("ports", containers=[container("a", port(80, "http"), port(53, "dns", "UDP")), container("b")]),
    pod("six", podIP="fd00::1", containers=[container("a", port(80)), container("b")]),
    pod("host", podIP="192.0.2.1", spec={"hostNetwork": True}),
    pod("starting", podIP="", phase="Pending"),
    pod("done", phase="Succeeded", conditions=[{"type": "Ready", "status": "False"}]),
    pod("broken", phase="Failed", podIP=""),
    pod("lost", phase="Unknown", conditions=[{"type": "Ready", "status": "Unknown"}]),
    pod(
        "containers",
        spec={
            "initContainers": [container("init"), container("side", port(9000))],
            "ephemeralContainers": [{"name": "debugger", "image": "debugger:1"}],
        },
        containerStatuses=[{"name": "web", "containerID": "containerd://w"}],
        initContainerStatuses=[{"name": "side", "containerID": "containerd://s"}],
    ),
    pod(
        "owned",
        metadata={
            "ownerReferences": [
                {"kind": "Node", "name": "n", "apiVersion": "v1", "uid": "1"},
                {"kind": "Job", "name": "j", "apiVersion": "batch/v1", "uid": "2", "controller": True},
            ],
            "labels": {"app.kubernetes.io/name": "owned", "1-digit": "", "a.b-c_d/e": "v"},
        },
    ),
    pod("annotated", metadata={"annotations": {f"example.com/{n}": f'"\\\n{n}é' for n in range(100)}}),
]  # fmt: skip
"""One pod of each kind whose treatment is agreed."""


async def discovered(prometheus):
    """The labels of each target before relabelling, without those of every job."""
    active = (await prometheus.api("targets", state="active"))["activeTargets"]
    return [
        {
            name: value
            for name, value in each["discoveredLabels"].items()
            if name not in ADDED and not name.startswith(("__scrape_", "__always_", "__convert_"))
        }
        for each in active
    ]


def apart():
    """Keeps pods with a shared address apart by their final labels."""
    names = ("pod_name", "pod_container_name", "pod_container_port_number")
    sources = [f"__meta_kubernetes_{name}" for name in names]
    return {"relabel_configs": [{"source_labels": sources, "target_label": "apart"}]}


async def test_the_targets_are_those_of_the_pod_role(stage):
    """Prometheus' own discovery finds the same targets in the same pods.

    Only the labels of the namespace and of the pod's workload differ. The role has these on
    request: `attach_metadata`, for workloads since Prometheus 3.11.
    """
    for each in SHAPES:
        stage.cluster.api.store.put("pods", {"kind": "Pod", "apiVersion": "v1"} | each)
    stage.cluster.kubelets["node-a"].pods = SHAPES
    await stage.deploy("daemonset", components=["discovery"])
    async with stage.session.get(f"{stage.daemons[0].url}/sd/pods") as response:
        ours = [
            {
                name: value
                for name, value in target.items()
                if value and not name.startswith(OURS) and name not in ON_REQUEST
            }
            for target in flat(await response.read())
        ]
    role = {"role": "pod", "kubeconfig_file": str(stage.kubeconfig())}
    role |= {"namespaces": {"names": ["shop"]}}
    job = {"job_name": JOB, "scrape_interval": "1h", "kubernetes_sd_configs": [role]}
    prometheus = await stage.prometheus({"scrape_configs": [job | apart()]})

    async def same():
        assert frozen(await discovered(prometheus)) == frozen(ours)

    await eventually(same)
    assert len(ours) == 14


ON_REQUEST = {f"__meta_kubernetes_pod_{kind}_name" for kind in ("deployment", "cronjob", "job")}


def frozen(targets):
    """Targets in a fixed order, to be compared."""
    return sorted(json.dumps(target, sort_keys=True) for target in targets)


async def test_prometheus_takes_every_label(stage):
    """Prometheus has every served label of each target, and adds its own."""
    stage.cluster.kubelets["node-a"].pods = SHAPES
    await stage.deploy("daemonset", components=["discovery"])
    url = f"{stage.daemons[0].url}/sd/pods"
    discovery = {"url": url, "refresh_interval": "1s"}
    job = {"job_name": JOB, "scrape_interval": "1h", "http_sd_configs": [discovery]}
    prometheus = await stage.prometheus({"scrape_configs": [job | apart()]})
    async with stage.session.get(url) as response:
        expected = [
            {name: value for name, value in target.items() if value}
            for target in flat(await response.read())
        ]

    async def taken():
        assert frozen(await discovered(prometheus)) == frozen(expected)

    await eventually(taken)


async def test_nodes_as_targets(stage):
    """Each node is scraped through the kmproxy that listed it, and its samples have its name."""
    await stage.deploy("deployment-direct", components=["discovery-all-nodes"])
    discovery = {"url": f"{stage.daemons[0].url}/sd/nodes", "refresh_interval": "1s"}
    job = {"job_name": "nodes", "honor_labels": True, "http_sd_configs": [discovery]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    prometheus = await stage.prometheus(config)
    targets = await prometheus.up("nodes", 2)
    assert {each["scrapeUrl"] for each in targets} == {
        f"{stage.daemons[0].url}/api/v1/nodes/{name}/proxy/metrics/cadvisor"
        for name in stage.cluster.kubelets
    }

    async def stored():
        found = await prometheus.query('container_memory_working_set_bytes{pod!="",container!=""}')
        assert {labels["node"] for labels, _ in found} == set(stage.cluster.kubelets)
        assert all(labels["instance"] == labels["node"] for labels, _ in found)
        assert {labels["team"] for labels, _ in found if labels["namespace"] == "payments"} == {
            "payments"
        }

    await eventually(stored)
