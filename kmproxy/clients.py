"""The clients of the API server and the kubelets, as they are configured.

Knows how they are made of an identity, TLS contexts and a session. Must not
know what is asked of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kmproxy.apiserver import ApiServer
from kmproxy.config import Config
from kmproxy.credentials import find_identity, kubelet_trust
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.identity import Identity
from kmproxy.kubelet import Kubelet
from kmproxy.nodes import NodeDirectory
from kmproxy.telemetry import Telemetry
from kmproxy.tls import TlsContext
from kmproxy.upstream import Upstream, open_session


@dataclass(frozen=True, slots=True)
class Clients:
    """The ways out of the process. `nodes` is None unless every node is served."""

    identity: Identity
    api: ApiServer
    kubelet: Kubelet
    nodes: NodeDirectory | None


@asynccontextmanager
async def open_clients(
    config: Config,
    environment: Mapping[str, str],
    *,
    clock: Callable[[], float],
    telemetry: Telemetry,
) -> AsyncIterator[Clients]:
    """The clients, whose connections are closed at the end.

    Nothing is asked yet, but by a kubeconfig's plugin. Raises ConfigError or
    CredentialError.
    """
    identity = await find_identity(config.apiserver, environment, clock=clock, telemetry=telemetry)
    api_tls = TlsContext(
        lambda: identity.trust, "the cluster's CA", clock=clock, telemetry=telemetry
    )
    kubelet_tls = TlsContext(
        lambda: kubelet_trust(config.kubelet, identity),
        "the kubelets' CA",
        clock=clock,
        telemetry=telemetry,
    )
    api_tls.current()
    try:
        kubelet_tls.current()
    except CredentialError as error:
        raise ConfigError([f"--kubelet-ca-file: {error}"]) from error
    async with open_session() as session:
        upstream = Upstream(
            "API server", session, identity, api_tls,
            server_name=identity.server_name, proxied=True,
        )  # fmt: skip
        api = ApiServer(upstream, identity)
        if not config.kubelet.apiserver:
            upstream = Upstream(
                "kubelet", session, identity, kubelet_tls, server_name=config.kubelet.server_name
            )
        nodes = NodeDirectory(api, clock=clock) if config.kubelet.all_nodes else None
        yield Clients(identity, api, Kubelet(config.kubelet, upstream), nodes)
