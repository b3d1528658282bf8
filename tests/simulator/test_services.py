"""Endpoints follow services and pods, as with the real controller."""

import pytest

from kmproxy.simulator.objects import running
from kmproxy.simulator.services import Services
from kmproxy.simulator.store import Store

WEB = [{"name": "http", "port": 80, "targetPort": "web"}]


@pytest.fixture
def store():
    """Make an empty store."""
    return Store()


@pytest.fixture
def services(store):
    """Return the services of the store."""
    return Services(store)


def service(name="web", ports=WEB, **more):
    """A service in the namespace `shop` that selects app=web."""
    metadata = {"name": name, "namespace": "shop", "labels": {"of": name}}
    return {"metadata": metadata, "spec": {"selector": {"app": "web"}, "ports": ports} | more}


def pod(name, ip, *, port=8080, ready=True, namespace="shop", **labels):
    """A pod with one container, whose port is called `web`."""
    status = running("127.0.0.1", ip, "2026-01-01T00:00:00Z")
    if not ready:
        status["conditions"] = [{"type": "Ready", "status": "False"}]
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "web"} | labels}
    container = {"name": "c", "ports": [{"name": "web", "containerPort": port}]}
    return {
        "metadata": metadata,
        "spec": {"containers": [container], "nodeName": "n"},
        "status": status,
    }


def addresses(store, name="shop/web", field="addresses"):
    """The addresses in each subset of an Endpoints object."""
    subsets = store.objects["endpoints"][name]["subsets"]
    return [[each["ip"] for each in subset.get(field, ())] for subset in subsets]


def test_endpoints_follow_pods(store, services):
    """The pods of the selector and the namespace, with their facts, as they come and go."""
    services.put("services", service())
    assert addresses(store) == []
    services.put("pods", pod("a", "10.0.0.1"))
    services.put("pods", pod("b", "10.0.0.2"))
    services.put("pods", pod("c", "10.0.0.3", app="other"))
    services.put("pods", pod("d", "10.0.0.4", namespace="elsewhere"))
    assert addresses(store) == [["10.0.0.1", "10.0.0.2"]]
    (subset,) = store.objects["endpoints"]["shop/web"]["subsets"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    (first, _) = subset["addresses"]
    uid = store.objects["pods"]["shop/a"]["metadata"]["uid"]
    assert first == {
        "ip": "10.0.0.1",
        "nodeName": "n",
        "targetRef": {"kind": "Pod", "name": "a", "namespace": "shop", "uid": uid},
    }
    services.remove("pods", "shop/a")
    assert addresses(store) == [["10.0.0.2"]]
    assert repr(services) == "<Services shop/web>"


def test_unready_pods_are_said_to_be(store, services):
    """They are listed apart in Endpoints, and have a condition in an EndpointSlice."""
    services.put("services", service())
    services.put("pods", pod("a", "10.0.0.1", ready=False))
    assert addresses(store) == [[]]
    assert addresses(store, field="notReadyAddresses") == [["10.0.0.1"]]
    (one,) = store.objects["endpointslices"]["shop/web-0"]["endpoints"]
    assert (one["addresses"], one["conditions"]) == (["10.0.0.1"], {"ready": False})


def test_a_named_port_is_each_pods_own(store, services):
    """Pods with different ports of that name have their own subsets and slices."""
    services.put("services", service())
    services.put("pods", pod("a", "10.0.0.1"))
    services.put("pods", pod("b", "10.0.0.2", port=9090))
    assert addresses(store) == [["10.0.0.1"], ["10.0.0.2"]]
    slices = store.objects["endpointslices"]
    assert [each["ports"][0]["port"] for each in slices.values()] == [8080, 9090]
    labels = {"of": "web", "kubernetes.io/service-name": "web"}
    assert all(each["metadata"]["labels"] == labels for each in slices.values())
    services.remove("pods", "shop/b")
    assert list(store.objects["endpointslices"]) == ["shop/web-0"]


def test_ports_by_number(store, services):
    """A numeric target port is used, and without one the service's port."""
    ports = [{"port": 80}, {"name": "m", "port": 81, "targetPort": 9090}]
    services.put("services", service(ports=ports))
    services.put("pods", pod("a", "10.0.0.1"))
    (subset,) = store.objects["endpoints"]["shop/web"]["subsets"]
    assert [each["port"] for each in subset["ports"]] == [80, 9090]


def test_what_changes_nothing_is_no_event(store, services):
    """Unchanged endpoints are not written again."""
    services.put("services", service())
    services.put("pods", pod("a", "10.0.0.1"))
    version = store.version
    services.put("pods", pod("z", "10.0.0.9", app="other"))
    assert store.version == version + 1


def test_a_service_goes_with_its_endpoints(store, services):
    """Endpoints go with their service. A service without a selector has none."""
    services.put("pods", pod("a", "10.0.0.1"))
    services.put("services", service())
    services.put("services", service("by-hand", selector=None))
    assert addresses(store, "shop/by-hand") == []
    services.remove("services", "shop/web")
    services.remove("services", "shop/by-hand")
    assert store.objects["endpoints"] == store.objects["endpointslices"] == {}
