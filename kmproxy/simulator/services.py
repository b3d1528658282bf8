"""The services of a simulated cluster, and the controller that updates their endpoints.

Knows selectors, named ports and readiness. Must not know requests, connections, users, or
anything of the proxy under test.
"""

from __future__ import annotations

from collections.abc import Iterable

from kmproxy.simulator.objects import Object, key
from kmproxy.simulator.store import Store

_Ports = tuple[tuple[str, int, str], ...]


class Services:
    """The services and pods of a store. After each change the endpoints are updated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Services {', '.join(self._store.objects['services'])}>"

    def put(self, resource: str, item: Object) -> Object:
        """Create or replace one of the `pods` or `services`."""
        item = self._store.put(resource, item)
        self._reconcile(item["metadata"]["namespace"])
        return item

    def remove(self, resource: str, name: str) -> Object:
        """Delete a pod or a service by NAMESPACE/NAME. Raises KeyError if it does not exist."""
        item = self._store.remove(resource, name)
        self._reconcile(item["metadata"]["namespace"])
        return item

    def _reconcile(self, namespace: str) -> None:
        objects = self._store.objects
        here = f"{namespace}/"
        pods = [item for name, item in objects["pods"].items() if name.startswith(here)]
        wanted: dict[str, dict[str, Object]] = {"endpoints": {}, "endpointslices": {}}
        for name, service in objects["services"].items():
            if name.startswith(here):
                whole, slices = endpoints(service, pods)
                wanted["endpoints"][name] = whole
                wanted["endpointslices"] |= {key(each): each for each in slices}
        for resource, items in wanted.items():
            for name in [name for name in objects[resource] if name.startswith(here)]:
                if name not in items:
                    self._store.remove(resource, name)
            for name, item in items.items():
                old = objects[resource].get(name, {})
                metadata = old.get("metadata", {}) | item["metadata"]
                self._store.put(resource, item | {"metadata": metadata})


def endpoints(service: Object, pods: Iterable[Object]) -> tuple[Object, list[Object]]:
    """Return the Endpoints of a service and its EndpointSlices, one for each set of ports.

    They hold the pods of the service's namespace that have an address and the labels of the
    selector. Pods that are not ready are marked as such.
    """
    metadata = service["metadata"]
    backends: dict[_Ports, list[Object]] = {}
    for pod in pods:
        if _selected(service, pod):
            backends.setdefault(_ports(service, pod), []).append(pod)
    common = {"name": metadata["name"], "namespace": metadata["namespace"]}
    subsets, slices = [], []
    for number, (ports, chosen) in enumerate(backends.items()):
        listed = [{"name": name, "port": port, "protocol": what} for name, port, what in ports]
        both = {True: [each for each in chosen if _ready(each)]}
        both[False] = [each for each in chosen if not _ready(each)]
        subset: Object = {"ports": listed}
        for ready, field in ((True, "addresses"), (False, "notReadyAddresses")):
            if both[ready]:
                subset[field] = [
                    {"ip": each["status"]["podIP"], **_behind(each)} for each in both[ready]
                ]
        subsets.append(subset)
        slices.append(
            {
                "kind": "EndpointSlice",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": common
                | {
                    "name": f"{metadata['name']}-{number}",
                    "labels": (metadata.get("labels") or {})
                    | {"kubernetes.io/service-name": metadata["name"]},
                },
                "addressType": "IPv4",
                "ports": listed,
                "endpoints": [
                    {"addresses": [each["status"]["podIP"]], "conditions": {"ready": ready}}
                    | _behind(each)
                    for ready, them in both.items()
                    for each in them
                ],
            }
        )
    kept = {name: metadata[name] for name in ("labels",) if name in metadata}
    head = {"kind": "Endpoints", "apiVersion": "v1", "metadata": common | kept}
    return head | {"subsets": subsets}, slices


def _selected(service: Object, pod: Object) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(
        selector
        and pod["metadata"]["namespace"] == service["metadata"]["namespace"]
        and pod.get("status", {}).get("podIP")
        and selector.items() <= labels.items()
    )


def _ports(service: Object, pod: Object) -> _Ports:
    """The ports of a service in a pod. A named target port is looked up in the containers."""
    named = {
        port.get("name"): port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or ()
    }
    return tuple(
        (each.get("name", ""), number, each.get("protocol", "TCP"))
        for each in service["spec"].get("ports") or ()
        for target in (each.get("targetPort", each["port"]),)
        if (number := target if isinstance(target, int) else named.get(target)) is not None
    )


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _behind(pod: Object) -> Object:
    metadata = pod["metadata"]
    reference = {"kind": "Pod"} | {key: metadata.get(key) for key in ("name", "namespace", "uid")}
    return {"nodeName": pod["spec"].get("nodeName"), "targetRef": reference}
