"""Prometheus' Kubernetes discovery in the simulated cluster, for machines that cannot build it.

Knows the roles and labels that the shipped files use, and refuses other roles;
`test_e2e_annotations` holds it against Prometheus' own wherever there is that.
"""

from __future__ import annotations

import asyncio
import json
import re

from kmproxy.simobjects import key


def targets(objects, role, namespaces=()):
    """The targets of a role, as the groups of a file for `file_sd_configs`.

    `objects` are the simulated API server's; no `namespaces` are all of them.
    """
    found = {"node": _nodes, "pod": _pods, "endpoints": _endpoints}[role](objects)
    return [
        {"targets": [address], "labels": labels}
        for address, labels in found
        if not namespaces or labels["__meta_kubernetes_namespace"] in namespaces
    ]


def _nodes(objects):
    for node in objects["nodes"].values():
        name, status = node["metadata"]["name"], node["status"]
        address = status["addresses"][0]["address"]
        port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        labels = {"__meta_kubernetes_node_name": name, "instance": name}
        yield f"{address}:{port}", labels | _metadata("node", node)


def _pods(objects):
    for pod in filter(_placed, objects["pods"].values()):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports") or ():
                name = {"__meta_kubernetes_pod_container_port_name": port.get("name", "")}
                yield f"{pod['status']['podIP']}:{port['containerPort']}", _pod(pod) | name


def _placed(pod):
    return pod["spec"].get("nodeName") and pod["status"].get("podIP")


def _pod(pod):
    return {
        "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
        "__meta_kubernetes_pod_name": pod["metadata"]["name"],
        "__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"],
        "__meta_kubernetes_pod_host_ip": pod["status"]["hostIP"],
        "__meta_kubernetes_pod_phase": pod["status"]["phase"],
        **_metadata("pod", pod),
    }


def _endpoints(objects):
    for one in objects["endpoints"].values():
        service = objects["services"][key(one)]
        about = {"__meta_kubernetes_service_name": service["metadata"]["name"]}
        about |= _metadata("service", service)
        for subset in one["subsets"]:
            for address in subset.get("addresses", ()):
                behind = address["targetRef"]
                pod = objects["pods"][f"{behind['namespace']}/{behind['name']}"]
                for port in subset["ports"]:
                    yield f"{address['ip']}:{port['port']}", about | _pod(pod)


def _metadata(kind, item):
    """The labels and annotations of an object, as labels of its targets."""
    return {
        f"__meta_kubernetes_{kind}_{what}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}": value
        for what in ("label", "annotation")
        for name, value in (item["metadata"].get(f"{what}s") or {}).items()
    }


async def discover(objects, config, directory):
    """Keep a file of targets for each job of a configuration, until it is cancelled."""
    while True:
        for job in config["scrape_configs"]:
            groups = [
                group
                for each in job.get("kubernetes_sd_configs", ())
                for group in targets(
                    objects(), each["role"], each.get("namespaces", {}).get("names", ())
                )
            ]
            path = directory / f"{job['job_name']}.json"
            text = json.dumps(groups)
            if not path.exists() or path.read_text("utf-8") != text:
                fresh = path.with_suffix(".new")
                fresh.write_text(text, "utf-8")
                fresh.replace(path)
        await asyncio.sleep(0.5)
