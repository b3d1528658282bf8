"""The stage of the e2e tests: a simulated cluster with everything else real.

Knows the files that ship, and puts addresses in the place of addresses, and seconds in that of
waiting times; nothing else of the files is changed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from kmproxy.simulator.objects import running
from tests.support.kustomize import build
from tests.support.programs import Alertmanager, Program, Prometheus, Receivers, free_port

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"


class Daemon(Program):
    """A pod of the manifests: its object is in the API, its container is this process."""

    @property
    def ready_url(self):
        """Its own readiness, as the kubelet asks it."""
        return f"http://{self.telemetry}/readyz"


class Stage:
    """A simulated cluster beside real programs, for the tests of the proof."""

    def __init__(self, cluster, directory, session, stack):
        self.cluster = cluster
        self.directory = directory
        self.session = session
        self.stack = stack
        self.ports = {8080: free_port(), 8081: free_port()}
        self.daemons = []
        self.exporters = {}  # the URL of an exporter in the manifests -> its URL here
        self._made = 0

    @property
    def address(self):
        """Where the first of the pods serves the enriched metrics: in the Service's place."""
        return self.daemons[0].address

    async def deploy(self, overlay, *flags, components=(), ready=True):
        """Run the pods of an overlay: DaemonSets on every node, Deployments on the first ones.

        They have the rights of the overlay's own roles only.
        """
        folders = [MANIFESTS / "components" / name for name in components]
        nodes, api = list(self.cluster.kubelets), self.cluster.api
        for each in build(MANIFESTS / "overlays" / overlay, *folders):
            match each["kind"]:
                case "Namespace":
                    api.namespaces.put(each)
                case "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding":
                    self.cluster.authority.rbac.apply(each)
                case "Service":
                    api.services.put("services", self._placed(each))
                case "ConfigMap" if "config.yml" in each["data"]:
                    self._configure(each["data"]["config.yml"])
                case "DaemonSet" | "Deployment":
                    for node in nodes[: each["spec"].get("replicas", len(nodes))]:
                        self._run(self._placed(each), node, flags)
        for daemon in self.daemons:
            self.stack.push_async_callback(daemon.stop)
            await daemon.start(ready=ready)

    def _configure(self, text):
        """Write the YAML file of the daemons, with the exporters' addresses here."""
        for there, here in self.exporters.items():
            assert there in text
            text = text.replace(there, here)
        (self.directory / "config.yml").write_text(text, "utf-8")

    def _placed(self, value):
        """A manifest with free ports for the ports it names."""
        if isinstance(value, dict):
            return {key: self._placed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._placed(each) for each in value]
        if isinstance(value, int):
            return self.ports.get(value, value)
        return str(self.ports[int(value)]) if value in ("8080", "8081") else value

    def _run(self, workload, node, flags):
        self._identify(workload)
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
        fields = {"status.hostIP": kubelet.host, "spec.nodeName": node}
        given = {
            each["name"]: each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container["env"]
        }
        arguments = []
        if "KMPROXY_KUBE_APISERVER" in given:
            given["KMPROXY_KUBE_APISERVER"] = self.cluster.api.url
        else:
            arguments.append(f"--node-port={kubelet.port}")
        given.pop("KMPROXY_PEERS", None)  # a name of the cluster's own DNS
        if "KMPROXY_CONFIG" in given:
            given["KMPROXY_CONFIG"] = str(self.directory / "config.yml")
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
                **given,
                "KUBERNETES_SERVICE_HOST": api.hostname,
                "KUBERNETES_SERVICE_PORT": str(api.port),
            },
        )
        daemon.address, daemon.telemetry = metrics, telemetry
        self.daemons.append(daemon)

    def _identify(self, workload):
        """Give the daemons the token of their service account, which has no rights by itself."""
        namespace = workload["metadata"]["namespace"]
        account = workload["spec"]["template"]["spec"]["serviceAccountName"]
        user = f"system:serviceaccount:{namespace}:{account}"
        self.cluster.token = self.cluster.authority.issue(user)
        self.cluster.write_service_account(self.directory / "sa")

    def kubeconfig(self):
        """The kubeconfig of Prometheus: its own service account, with the rights of its role."""
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

    async def prometheus(self, config, *flags, sooner="1m"):
        """Run a Prometheus until the end of the test."""
        self._made += 1
        directory = self.directory / f"prometheus-{self._made}"
        (directory / "rules").mkdir(parents=True)
        for path in (MANIFESTS / "components" / "rules").glob("*.rules.yaml"):
            text = path.read_text("utf-8")
            text = re.sub(f"for: {sooner}$", "for: 1s", text, flags=re.MULTILINE)
            (directory / "rules" / path.name).write_text(text, "utf-8")
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
