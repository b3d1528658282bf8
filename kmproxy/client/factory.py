"""Builds the upstream for kubelets or for an exporter from an HTTP client's section.

Knows how to build an upstream from the section's credential, TLS, proxy and
headers. Must not know the requests of that upstream. It is imported only if the
configuration has such a section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import ClientSession

from kmproxy.client.credentials import (
    Credential,
    Header,
    Login,
    RotatingText,
    is_header_value,
    is_password,
    is_token,
    is_user_name,
)
from kmproxy.client.oauth2 import ClientCredentials
from kmproxy.client.pinning import Pinning
from kmproxy.client.tls import TlsContext, Trust, client_trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.http_options import Access, Authorization, BasicAuth, OAuth2, ProxyOptions
from kmproxy.config.proxies import from_environment
from kmproxy.config.types import Source
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.telemetry import CredentialErrors

if TYPE_CHECKING:
    from kmproxy.client.upstream import Find


@dataclass(frozen=True, slots=True)
class UpstreamFactory:
    """Builds an upstream. `stack` closes everything that has to end with it.

    `section` is the path of the configuration's section, for error messages.
    """

    session: ClientSession
    stack: AsyncExitStack
    environment: Mapping[str, str]
    clock: Callable[[], float]
    errors: CredentialErrors
    section: str = "kubelet"

    def kubelet(
        self,
        access: Access,
        own: Credential,
        trust: Callable[[], Trust],
        tls: TlsContext,
        *,
        server_name: str | None,
        pinning: Pinning | None,
        nodes: ClientSession,
    ) -> Upstream:
        """The upstream for kubelets. It uses the section's credential, else `own`.

        `own` is kmproxy's credential. `tls` is made from `trust`. `server_name` is
        the flag's value. Raises ConfigError.
        """
        elsewhere = None
        if access.follow_redirects:
            elsewhere = self._tls(lambda: replace(trust(), cert=None, key=None))
        return Upstream(
            "kubelet",
            self.session,
            self._credential(access.credential) if access.identifies else own,
            tls,
            server_name=lambda: server_name or access.tls.server_name,
            proxy=self._proxy(self.section, access.proxy),
            headers=access.headers,
            elsewhere=elsewhere,
            pinning=pinning,
            nodes=nodes,
        )

    def exporter(
        self,
        name: str,
        url: str,
        access: Access,
        checked: ClientSession,
        contexts: dict[Trust, TlsContext],
    ) -> Upstream:
        """The upstream `name` for an exporter at a URL.

        It sends the credential of `access` or none, and follows no redirect. Its connections
        belong to the session `checked`, unless a proxy makes them. Upstreams without a CA and a
        client certificate share the context in `contexts`: the CAs of the system take 0.8 MiB.
        Raises ConfigError.
        """
        trust = client_trust(access.tls)
        tls = self._tls(lambda: trust)
        if trust.ca is None and trust.cert is None:
            tls = contexts.setdefault(trust, tls)
        if url.startswith("https:"):
            try:
                tls.current()
            except CredentialError as error:
                raise ConfigError([f"{self.section}.tls_config: {error}"]) from error
        proxy = self._proxy(self.section, access.proxy, urlsplit(url).scheme)
        # A proxy resolves the name itself, and the proxy's own address is configured.
        proxied = proxy is not None and proxy(url) is not None
        return Upstream(
            name,
            self.session if proxied else checked,
            self._credential(access.credential),
            tls,
            server_name=lambda: access.tls.server_name,
            proxy=proxy,
            headers=access.headers,
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
        tls = self._tls(partial(client_trust, config.tls))
        try:
            tls.current()
        except CredentialError as error:
            raise ConfigError([f"{self.section}.oauth2.tls_config: {error}"]) from error
        endpoint = Upstream(
            "OAuth2 token endpoint",
            self.session,
            None,
            tls,
            server_name=lambda: config.tls.server_name,
            proxy=self._proxy(f"{self.section}.oauth2", config.proxy),
        )
        secret = self._text(
            config.client_secret, "oauth2.client_secret", is_password, "client_secret"
        )
        credential = ClientCredentials(
            config, secret, endpoint, clock=self.clock, errors=self.errors,
            section=self.section,
        )  # fmt: skip
        self.stack.push_async_callback(credential.close)
        return credential

    def _tls(self, trust: Callable[[], Trust]) -> TlsContext:
        return TlsContext(trust, self.section, clock=self.clock, errors=self.errors)

    def _text(
        self, source: Source, key: str, accept: Callable[[str], bool], credential: str
    ) -> RotatingText:
        try:
            return RotatingText(
                source,
                f"{self.section}.{key}",
                accept,
                credential=credential,
                clock=self.clock,
                errors=self.errors,
            )
        except CredentialError as error:
            raise ConfigError([str(error)]) from error

    def _proxy(self, where: str, options: ProxyOptions, scheme: str = "https") -> Find | None:
        proxies = options.proxies
        if options.from_environment:
            try:
                proxies = from_environment(self.environment, options.headers, scheme=scheme)
            except ValueError as error:
                raise ConfigError([f"{where}.proxy_from_environment: {error}"]) from error
        return proxies.find if proxies else None
