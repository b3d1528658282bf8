"""The clients of the API server and the kubelets, as they are configured.

Knows how they are made of an identity, TLS contexts and a session. Must not
know what is asked of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import ClientSession

from kmproxy.access import Access, Authorization, BasicAuth, OAuth2, ProxyOptions
from kmproxy.apiserver import ApiServer
from kmproxy.config import Config, KubeletConfig
from kmproxy.credentials import (
    Header,
    Login,
    client_trust,
    find_identity,
    is_password,
    is_user_name,
    kubelet_trust,
)
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.identity import Credential, Identity, RotatingText, is_header_value, is_token
from kmproxy.kubelet import Kubelet
from kmproxy.nodes import NodeDirectory
from kmproxy.proxies import from_environment
from kmproxy.telemetry import Telemetry
from kmproxy.tls import TlsContext, Trust
from kmproxy.upstream import Find, Upstream, open_session
from kmproxy.values import Source


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
        lambda: kubelet_trust(config.kubelet, identity, config.access),
        "the kubelets' CA",
        clock=clock,
        telemetry=telemetry,
    )
    api_tls.current()
    try:
        kubelet_tls.current()
    except CredentialError as error:
        where = "kubelet.tls_config" if config.access else "--kubelet-ca-file"
        raise ConfigError([f"{where}: {error}"]) from error
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        upstream = Upstream(
            "API server", session, identity, api_tls,
            server_name=identity.server_name, proxy=lambda _: identity.proxy,
        )  # fmt: skip
        api = ApiServer(upstream, identity)
        if config.access:
            wiring = _Wiring(session, stack, environment, clock, telemetry)
            upstream = wiring.kubelet(config.kubelet, config.access, identity, kubelet_tls)
        elif not config.kubelet.apiserver:
            upstream = Upstream(
                "kubelet", session, identity, kubelet_tls, server_name=config.kubelet.server_name
            )
        nodes = NodeDirectory(api, clock=clock) if config.kubelet.all_nodes else None
        yield Clients(identity, api, Kubelet(config.kubelet, upstream), nodes)


@dataclass(frozen=True, slots=True)
class _Wiring:
    """What the way of a `kubelet` section is made with. Its methods raise ConfigError."""

    session: ClientSession
    stack: AsyncExitStack
    environment: Mapping[str, str]
    clock: Callable[[], float]
    telemetry: Telemetry

    def kubelet(
        self, config: KubeletConfig, access: Access, identity: Identity, tls: TlsContext
    ) -> Upstream:
        """The kubelets, as the section says."""
        elsewhere = None
        if access.follow_redirects:
            elsewhere = self._tls(
                lambda: replace(kubelet_trust(config, identity, access), cert=None, key=None)
            )
        return Upstream(
            "kubelet",
            self.session,
            self._credential(access.credential) if access.identifies else identity,
            tls,
            server_name=config.server_name or access.tls.server_name,
            proxy=self._proxy("kubelet", access.proxy),
            headers=access.headers,
            elsewhere=elsewhere,
        )

    def _credential(self, given: Authorization | BasicAuth | OAuth2 | None) -> Credential | None:
        match given:
            case Authorization(credentials=source, key=key, scheme=scheme):
                accept = is_token if scheme.lower() == "bearer" else is_header_value
                return Header(scheme, self._text(source, key, accept, "token"))
            case BasicAuth(username=user, password=password):
                return Login(
                    self._text(user, "basic_auth.username", is_user_name, "username"),
                    self._text(password, "basic_auth.password", is_password, "password"),
                )
            case OAuth2():
                return self._oauth2(given)
        return None

    def _oauth2(self, config: OAuth2) -> Credential:
        from kmproxy.oauth2 import ClientCredentials  # noqa: PLC0415 - few have such a server

        tls = self._tls(partial(client_trust, config.tls))
        try:
            tls.current()
        except CredentialError as error:
            raise ConfigError([f"kubelet.oauth2.tls_config: {error}"]) from error
        endpoint = Upstream(
            "OAuth2 token endpoint",
            self.session,
            None,
            tls,
            server_name=config.tls.server_name,
            proxy=self._proxy("kubelet.oauth2", config.proxy),
        )
        secret = self._text(
            config.client_secret, "oauth2.client_secret", is_password, "client_secret"
        )
        credential = ClientCredentials(
            config, secret, endpoint, clock=self.clock, telemetry=self.telemetry
        )
        self.stack.push_async_callback(credential.close)
        return credential

    def _tls(self, trust: Callable[[], Trust]) -> TlsContext:
        return TlsContext(trust, "kubelet", clock=self.clock, telemetry=self.telemetry)

    def _text(
        self, source: Source, key: str, accept: Callable[[str], bool], credential: str
    ) -> RotatingText:
        try:
            return RotatingText(
                source,
                f"kubelet.{key}",
                accept,
                credential=credential,
                clock=self.clock,
                telemetry=self.telemetry,
            )
        except CredentialError as error:
            raise ConfigError([str(error)]) from error

    def _proxy(self, where: str, options: ProxyOptions) -> Find | None:
        proxies = options.proxies
        if options.from_environment:
            try:
                proxies = from_environment(self.environment, options.headers)
            except ValueError as error:
                raise ConfigError([f"{where}.proxy_from_environment: {error}"]) from error
        return proxies.find if proxies else None
