"""The served paths, exactly as spelled, and no path near them."""

import pytest

from kmproxy.scrape.routes import Route, find_route, served_paths
from kmproxy.sources.endpoints import ENDPOINTS, NODE_PREFIX


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_of_the_configured_node(endpoint):
    """The four paths of a kubelet name the same endpoints of the configured node."""
    assert find_route(endpoint, all_nodes=False) == Route(endpoint, endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_of_a_named_node(endpoint):
    """The node-proxy path names a node, only with all nodes served."""
    path = f"/api/v1/nodes/node-a/proxy{endpoint}"
    assert find_route(path, all_nodes=True) == Route(NODE_PREFIX + endpoint, endpoint, "node-a")
    assert find_route(path, all_nodes=False) is None


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/metrics/", "//metrics", "/metrics/cadvisor/", "/Metrics", "/metrics/../pods",
        "/metrics%2fcadvisor", "/%6detrics", "/metrics;x", "/metrics#x", "/pods", "/exec/a/b/c",
        "/api/v1/nodes/a/proxy/pods", "/api/v1/nodes/a/b/proxy/metrics",
        "/api/v1/nodes/a/proxy//metrics", "/api/v1/nodes/a/proxy/metrics/",
        "/api/v1/nodes/a/proxy/metrics/../exec", "/api/v1/nodes/a%2f..%2fb/proxy/pods",
        "/api/v1/nodes/a/proxy", "/api/v1/nodes/a", "http://host/metrics",
        "/api/v1/nodes/a/proxy/metrics\n",
    ],
)  # fmt: skip
def test_nothing_near_a_path_is_one(path):
    """A doubled, dotted, encoded or longer path is not served."""
    assert find_route(path, all_nodes=True) is None


def test_what_is_served_is_what_the_page_says():
    """Every path of the status page is served once a node is filled in."""
    for shown in served_paths(all_nodes=True):
        route = find_route(shown.replace("{node}", "n"), all_nodes=True)
        assert route is not None
        assert route.path == shown
    assert served_paths(all_nodes=False) == list(ENDPOINTS)
