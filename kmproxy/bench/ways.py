"""The ways of a scrape that are measured: server and codings, and which of them are compared.

Knows what each way adds to nginx's configuration. Must not know how a way is measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """A way of a scrape: a server, the coding from the kubelet, and the coding to the client."""

    server: str
    upstream: str
    client: str
    nginx: str = ""
    """The lines that this way adds to nginx's configuration."""

    @property
    def name(self) -> str:
        """The unique name of the way."""
        return f"{self.server}, {self.upstream} to {self.client}"


_PLAIN = 'proxy_set_header Accept-Encoding "";'

_PACKED = "proxy_set_header Accept-Encoding gzip;"

# Not `gzip_types text/plain`: nginx cuts only the charset off a kubelet's
# `text/plain; version=0.0.4; charset=utf-8`. The rest is another type, and is not compressed.
_LEVEL_1 = "gzip on; gzip_comp_level 1; gzip_types *; gzip_proxied any;"

KMPROXY_IDENTITY = Way("kmproxy", "gzip", "identity")

KMPROXY_GZIP = Way("kmproxy", "gzip", "gzip")

NGINX_IDENTITY = Way("nginx", "identity", "identity", _PLAIN)

NGINX_GUNZIP = Way("nginx", "gzip", "identity", f"{_PACKED} gunzip on;")

NGINX_GZIP = Way("nginx", "identity", "gzip", f"{_PLAIN} {_LEVEL_1}")

NGINX_PASSED_ON = Way("nginx", "gzip", "gzip", _PACKED)

WAYS = (
    KMPROXY_IDENTITY,
    NGINX_IDENTITY,
    NGINX_GUNZIP,
    KMPROXY_GZIP,
    NGINX_GZIP,
    NGINX_PASSED_ON,
)

COMPARED = (
    (KMPROXY_IDENTITY, NGINX_IDENTITY),
    (KMPROXY_IDENTITY, NGINX_GUNZIP),
    (KMPROXY_GZIP, NGINX_GZIP),
)
"""The pairs of ways whose CPU times are compared."""
