"""The served paths of metrics, and the endpoint and node that each path asks for.

Knows kmproxy's own paths of metrics. Must not know methods, statuses or how anything is fetched.
A path is compared as the client sent it: a path with encoded characters, double slashes or dot
segments is another path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmproxy.sources.endpoints import ENDPOINTS, NODE_PREFIX

NAMESPACES = "/metrics/namespaces"
"""The path of the info metric of namespaces. It needs no request to a kubelet."""

_NODE_PATH = re.compile(r"/api/v1/nodes/([^/?#]*)/proxy(/[^?#]*)")


@dataclass(frozen=True, slots=True)
class Route:
    """The route of a path: one of `ENDPOINTS` of a node.

    `path` is the path as the documentation writes it, so it is from a bounded set. `node` is None
    for the configured node.
    """

    path: str
    endpoint: str
    node: str | None = None


def find_route(path: str, *, all_nodes: bool, a_node: bool = True) -> Route | None:
    """The route of a path without its query, or None if the path has no route.

    `a_node` tells whether a node is configured for the paths that name none.
    """
    if a_node and path in ENDPOINTS:
        return Route(path, path)
    if all_nodes and (match := _NODE_PATH.fullmatch(path)) and match[2] in ENDPOINTS:
        return Route(NODE_PREFIX + match[2], match[2], match[1])
    return None


def served_paths(*, all_nodes: bool, a_node: bool = True) -> list[str]:
    """Every served path of metrics that has a route, as the documentation writes it."""
    nodes = [NODE_PREFIX + endpoint for endpoint in ENDPOINTS] if all_nodes else []
    return [*(ENDPOINTS if a_node else ()), *nodes]
