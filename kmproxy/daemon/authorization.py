"""The authorizer of the metrics port, and the configurations in which it would prove nothing.

Must not know how a caller is authenticated or authorized.
"""

from __future__ import annotations

from collections.abc import Iterable

from kmproxy.auth import authorizer
from kmproxy.auth.authorizer import Authorizer, granted_to_all
from kmproxy.auth.reviewer import Reviewer
from kmproxy.daemon.clients import Clients
from kmproxy.daemon.runtime import Runtime
from kmproxy.errors import ConfigError
from kmproxy.labels.label_map import LabelMap
from kmproxy.scrape.routes import served_paths


def open_authorizer(
    runtime: Runtime, clients: Clients, labels: LabelMap, pages: Iterable[str]
) -> Authorizer | None:
    """The authorizer, or None if every caller may scrape. Raises ConfigError.

    `pages` are the served paths other than scrapes.
    """
    config = runtime.config.authorization
    if config.mode == "none":
        return None
    if not clients.identity.server.startswith("https:"):
        problem = f"--authorization={config.mode}: scrapers' tokens would be sent in plain text"
        raise ConfigError([f"{problem} to the API server at {clients.identity.server}"])
    for path in ("/", *served_paths(all_nodes=False, upstreams=clients.upstreams), *pages):
        if granted_to_all(path):
            problem = f"--authorization={config.mode}: Kubernetes' default roles let everyone"
            raise ConfigError([f"{problem} get {path}, so its review proves nothing"])
    reviewer = Reviewer(
        api=clients.api,
        audiences=config.audience,
        secret=runtime.secret,
        clock=runtime.clock,
        metrics=runtime.metrics.reviews,
    )
    runtime.stack.push_async_callback(reviewer.close)
    return authorizer.open_authorizer(
        config,
        reviewer,
        nodes=clients.nodes,
        namespaces=labels.existing,
        exists=lambda name: labels.find(name.encode()) is not None,
    )
