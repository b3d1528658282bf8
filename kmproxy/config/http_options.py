"""The options of an HTTP client: TLS, a forward proxy, a credential, as frozen values.

Must not know how they are written in YAML, or what a client does with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kmproxy.config.proxies import Headers, Proxies
from kmproxy.config.types import Source


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a server's certificate is verified, and the client certificate shown to the server."""

    ca: Source | None = None
    cert: Source | None = None
    key: Source | None = None
    server_name: str | None = None
    min_version: str = "TLS12"
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """The choice of a forward proxy. `headers` are for the proxy of the environment."""

    proxies: Proxies | None = None
    from_environment: bool = False
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """An Authorization header of any scheme, by default a bearer token.

    `key` names the configuration key from which the credentials come.
    """

    credentials: Source
    key: str
    scheme: str = "Bearer"


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """A user name and a password."""

    username: Source
    password: Source


@dataclass(frozen=True, slots=True)
class OAuth2:
    """A client of the client credentials grant (RFC 6749, 4.4)."""

    client_id: str
    client_secret: Source
    token_url: str = field(repr=False)  # its query may hold a key
    scopes: tuple[str, ...] = ()
    endpoint_params: Headers = ()
    tls: TlsOptions = field(default_factory=TlsOptions)
    proxy: ProxyOptions = field(default_factory=ProxyOptions)


@dataclass(frozen=True, slots=True)
class Access:
    """The `kubelet` section of the YAML file, or the HTTP client of an entry of `upstreams`.

    For a kubelet, without a credential and a client certificate, kmproxy uses its usual identity.
    An upstream then gets no credential.
    """

    credential: Authorization | BasicAuth | OAuth2 | None = None
    tls: TlsOptions = field(default_factory=TlsOptions)
    proxy: ProxyOptions = field(default_factory=ProxyOptions)
    headers: Headers = ()
    follow_redirects: bool = False

    @property
    def identifies(self) -> bool:
        """Whether the section sets an identity. Then no other credential is sent."""
        return self.credential is not None or self.tls.cert is not None

    @property
    def proxied(self) -> bool:
        """Whether a forward proxy may be used."""
        return self.proxy.proxies is not None or self.proxy.from_environment
