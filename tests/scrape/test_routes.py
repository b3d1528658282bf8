"""Which paths are served: these, as they are spelled, and nothing near them."""

import pytest

from kmproxy.scrape.routes import Route, find_route, served_paths
from kmproxy.sources.endpoints import ENDPOINTS, NODE_PREFIX


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_of_the_configured_node(endpoint):
    """The four paths of a kubelet ask for the same of the configured node."""
    assert find_route(endpoint, all_nodes=False) == Route(endpoint, endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_of_a_named_node(endpoint):
    """The API server's path to a node's proxy names the node, only where all are served."""
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
    """What is doubled, dotted, encoded or longer is another path, and not served."""
    assert find_route(path, all_nodes=True) is None


def test_what_is_served_is_what_the_page_says():
    """Every path that is shown is found once a node is filled in."""
    for shown in served_paths(all_nodes=True):
        route = find_route(shown.replace("{node}", "n"), all_nodes=True)
        assert route is not None
        assert route.path == shown
    assert served_paths(all_nodes=False) == list(ENDPOINTS)
