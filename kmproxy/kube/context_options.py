"""The current context of kubeconfigs: a cluster, and a user with its credential, as frozen values.

Must not know how they are written in a kubeconfig.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmproxy.config.proxies import Headers, Proxy
from kmproxy.config.types import Secret, Source


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A program that gives credentials. `cluster_config` is its extension in the cluster entry."""

    command: str
    args: tuple[str, ...]
    env: tuple[tuple[str, Secret], ...]
    api_version: str
    install_hint: str
    provide_cluster: bool
    cluster_config: Any = None


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """An OIDC provider that renews tokens. The fields are the keys that Go's plugin reads."""

    issuer: str
    client_id: str
    client_secret: Secret
    id_token: Secret | None
    refresh_token: Secret | None
    ca: Source | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and how kmproxy verifies and reaches it. `server` has no slash at its end."""

    server: str
    server_name: str | None = None
    verify: bool = True
    ca: Source | None = None
    proxy: Proxy | None = None
    proxy_url: Secret | None = None
    disable_compression: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """The user of requests, with its credential: a token, a login or a client certificate.

    The token of `token_file` goes before `token`. `plugin` is set if a plugin has to give the
    credential. `headers` are the headers of impersonation.
    """

    name: str
    token: Secret | None = None
    token_file: str | None = None
    login: tuple[str, Secret] | None = None
    cert: Source | None = None
    key: Source | None = None
    headers: Headers = ()
    plugin: ExecPlugin | OidcProvider | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """The current context: a cluster and a user."""

    cluster: Cluster
    user: User
