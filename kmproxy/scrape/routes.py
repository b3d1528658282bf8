"""The served paths of metrics, and the endpoint and node, or the upstream, of each path.

Knows kmproxy's own paths of metrics. Must not know methods, statuses or how anything is fetched.
A path is compared as the client sent it: a path with encoded characters, double slashes or dot
segments is another path.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from kmproxy.sources.endpoints import ENDPOINTS, NODE_PREFIX

NAMESPACES = "/metrics/namespaces"
"""The path of the info metric of namespaces. It needs no request to a kubelet."""

UPSTREAM_PATH = "/upstreams/{name}/metrics"
"""The path of an upstream, as the documentation writes it."""

_UPSTREAM_PATH = re.compile(r"/upstreams/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/metrics")
_NODE_PATH = re.compile(r"/api/v1/nodes/([^/?#]*)/proxy(/[^?#]*)")


@dataclass(frozen=True, slots=True)
class Route:
    """The route of a path: one of `ENDPOINTS` of a node, or with an empty endpoint an upstream.

    `path` is the path as the documentation writes it, so it is from a bounded set. `node` is None
    for the configured node. `upstream` may be the name of no upstream.
    """

    path: str
    endpoint: str
    node: str | None = None
    upstream: str | None = None


def find_route(
    path: str, *, all_nodes: bool, a_node: bool = True, upstreams: Collection[str] = ()
) -> Route | None:
    """The route of a path without its query, or None if the path has no route.

    `a_node` tells whether a node is configured for the paths that name none. With `upstreams`, also
    another name has a route: a caller without a right to its path must not learn that it is none.
    """
    if upstreams and (match := _UPSTREAM_PATH.fullmatch(path)):
        known = match[1] in upstreams
        return Route(path if known else UPSTREAM_PATH, "", upstream=match[1])
    if a_node and path in ENDPOINTS:
        return Route(path, path)
    if all_nodes and (match := _NODE_PATH.fullmatch(path)) and match[2] in ENDPOINTS:
        return Route(NODE_PREFIX + match[2], match[2], match[1])
    return None


def served_paths(
    *, all_nodes: bool, a_node: bool = True, upstreams: Collection[str] = ()
) -> list[str]:
    """Every served path of metrics that has a route, as the documentation writes it."""
    nodes = [NODE_PREFIX + endpoint for endpoint in ENDPOINTS] if all_nodes else []
    others = [UPSTREAM_PATH.format(name=name) for name in upstreams]
    return [*(ENDPOINTS if a_node else ()), *nodes, *others]
