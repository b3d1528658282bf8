"""The clients of the API server, kubelets and upstreams, as the configuration describes them.

Knows how a client is made from an identity, TLS contexts and a session. Must not
know which requests the clients send.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kmproxy.client.addresses import NodeAddresses
from kmproxy.client.pin_file import SUFFIX
from kmproxy.client.pinning import Pinning
from kmproxy.client.pins import PinBook
from kmproxy.client.session import open_session
from kmproxy.client.tls import Clock, TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.sections import Config
from kmproxy.daemon.metrics import SharedMetrics
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.identity import Identity
from kmproxy.kube.nodes import NodeDirectory
from kmproxy.kube.outage import Outage
from kmproxy.kube.service_account import IMPERSONATES, DirectIdentity, find_identity
from kmproxy.process import bound_tls_buffers
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.kubelet_trust import kubelet_trust

if TYPE_CHECKING:
    from kmproxy.sources.http import HttpSource


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients for all requests of the daemon to upstreams.

    `nodes` is None unless every node is served. `pinning` is None unless kubelets' certificates
    are pinned. Through `outage` the watch of namespaces tells the kubelet's client that the API
    server is away. `upstreams` are by name.
    """

    identity: Identity
    api: ApiServer
    kubelet: Kubelet
    nodes: NodeDirectory | None
    pinning: Pinning | None
    outage: Outage
    upstreams: Mapping[str, HttpSource]


@asynccontextmanager
async def open_clients(
    config: Config,
    environment: Mapping[str, str],
    *,
    clock: Callable[[], float],
    metrics: SharedMetrics,
) -> AsyncIterator[Clients]:
    """Open the clients, and close their connections at the end.

    No request is sent here, except by the plugin of a kubeconfig. Raises ConfigError or
    CredentialError.
    """
    bound_tls_buffers()
    errors = metrics.credential_errors
    identity = await find_identity(config.apiserver, environment, clock=clock, errors=errors)
    api_tls = TlsContext(lambda: identity.trust, "the cluster's CA", clock=clock, errors=errors)

    def trust() -> Trust:
        return kubelet_trust(config.kubelet, identity.trust, config.access)

    kubelet_tls = TlsContext(trust, "the kubelets' CA", clock=clock, errors=errors)
    api_tls.current()
    try:
        kubelet_tls.current()
    except CredentialError as error:
        by_flag = config.access is None or (config.kubelet.ca_file and error.credential == "ca")
        where = "--kubelet-ca-file" if by_flag else "kubelet.tls_config"
        raise ConfigError([f"{where}: {error}"]) from error
    kubelet = config.kubelet
    sends_own = config.access is not None and config.access.identifies
    as_ourselves = not kubelet.apiserver and kubelet.scheme == "https" and not sends_own
    if as_ourselves and identity.headers:
        raise ConfigError([f"{identity!r}".strip("<>") + f": {IMPERSONATES}"])
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        direct, addresses = not config.kubelet.apiserver, None
        listed = session
        if config.kubelet.all_nodes and direct:
            addresses = NodeAddresses(lambda: identity.server)
            listed = await stack.enter_async_context(open_session(addresses))
        pinning = None
        if config.kubelet.tls_pin and direct and config.kubelet.scheme == "https":
            pinning = _pinning(config, trust, clock, metrics)
        upstream = Upstream(
            "API server", session, identity, api_tls,
            server_name=lambda: identity.server_name, proxy=lambda _: identity.proxy,
        )  # fmt: skip
        api = ApiServer(upstream, identity)
        if config.access:
            from kmproxy.client.factory import UpstreamFactory  # noqa: PLC0415 - most daemons have no such section

            reach = UpstreamFactory(session, stack, environment, clock, errors)
            upstream = reach.kubelet(
                config.access, DirectIdentity(identity), trust, kubelet_tls,
                server_name=config.kubelet.server_name, pinning=pinning, nodes=listed,
            )  # fmt: skip
        elif direct:
            upstream = Upstream(
                "kubelet", session, DirectIdentity(identity), kubelet_tls,
                server_name=lambda: config.kubelet.server_name, pinning=pinning, nodes=listed,
            )  # fmt: skip
        nodes = None
        if config.kubelet.all_nodes:
            nodes = NodeDirectory(
                api=api, addresses=addresses, clock=clock, errors=metrics.upstream_errors
            )
        outage = Outage(clock)
        client = Kubelet(config.kubelet, upstream, outage)
        upstreams: Mapping[str, HttpSource] = {}
        if config.upstreams:
            from kmproxy.daemon.upstreams import open_upstreams  # noqa: PLC0415 - most daemons have none

            upstreams = await open_upstreams(
                config, session, stack, environment, clock=clock, errors=errors
            )
        yield Clients(identity, api, client, nodes, pinning, outage, upstreams)


def _pinning(
    config: Config, trust: Callable[[], Trust], clock: Clock, metrics: SharedMetrics
) -> Pinning:
    """The pinning of kubelets' certificates, still without any pin."""
    book = PinBook()
    unverified = TlsContext(
        lambda: replace(trust(), ca=None, verify=False),
        "kubelet",
        clock=clock,
        errors=metrics.credential_errors,
    )
    snapshot = config.apiserver.label_snapshot
    return Pinning(book, unverified, metrics.pins, f"{snapshot}{SUFFIX}" if snapshot else None)
