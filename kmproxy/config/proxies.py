"""Forward proxies: finds the proxy for a URL, if the URL has one.

Knows proxy URLs, and which hosts are left out, by the rules of Go's `httpproxy`. Must not
know what is sent through a proxy: only TLS is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from kmproxy.config.types import Secret, parse_host

Headers = tuple[tuple[str, Secret], ...]
_Address = IPv4Address | IPv6Address


class Proxy(NamedTuple):
    """A proxy: its URL without credentials, and the headers of a CONNECT request to it."""

    url: str
    headers: Headers = ()


def parse_proxy(text: str) -> Proxy:
    """Reads HOST, HOST:PORT or a URL. Its user and password become Proxy-Authorization.

    Raises ValueError with a reason that does not show the text.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parse_host(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError("the value is not a proxy such as http://proxy.example.com:3128") from None
    if parts.scheme.startswith("socks"):
        raise ValueError("SOCKS is not supported: write an http:// or https:// URL")
    if parts.scheme not in {"http", "https"}:
        raise ValueError("the URL of a proxy must begin with http:// or https://")
    if parts.path.strip("/") or parts.query or parts.fragment or not text.isprintable():
        raise ValueError("the value is not a proxy such as http://proxy.example.com:3128")
    host = f"[{host}]" if ":" in host else host
    headers: Headers = ()
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        basic = base64.b64encode(pair.encode()).decode()
        headers = (("Proxy-Authorization", Secret(f"Basic {basic}")),)
    port = port or (443 if parts.scheme == "https" else 80)
    return Proxy(f"{parts.scheme}://{host}:{port}", headers)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy for all URLs except those that `excluded` leaves out, a list like NO_PROXY.

    None leaves out nothing. With a list, even an empty one, this host itself is
    always left out, as in Go.
    """

    proxy: Proxy
    excluded: str | None = None

    def find(self, url: str) -> Proxy | None:
        """Returns the proxy for a URL, or None if the list leaves out the URL."""
        parts = urlsplit(url)
        if self.excluded is None:
            return self.proxy
        port = parts.port or (80 if parts.scheme.lower() == "http" else 443)
        host = (parts.hostname or "").lower()
        return None if is_excluded(self.excluded, host, str(port)) else self.proxy


def from_environment(
    environment: Mapping[str, str], headers: Headers = (), *, scheme: str = "https"
) -> Proxies | None:
    """Reads HTTPS_PROXY and NO_PROXY, or the same in lower case; HTTP_PROXY for plain http.

    `scheme` is that of the URLs in lower case. Returns None without a proxy. Raises
    ValueError, which names the variable, for an invalid proxy.
    """
    for name in (f"{scheme}_proxy".upper(), f"{scheme}_proxy"):
        if text := environment.get(name):
            try:
                proxy = parse_proxy(text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            excluded = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
            return Proxies(proxy._replace(headers=proxy.headers + headers), excluded)
    return None


class Way(NamedTuple):
    """How a server is reached: by a proxy or directly, and the setting that says so."""

    proxy: Proxy | None = None
    why: str = ""

    def __str__(self) -> str:
        how = f"by the proxy {self.proxy.url}" if self.proxy else "directly"
        return f"{how} ({self.why})" if self.why else how


def way_by_environment(environment: Mapping[str, str], url: str) -> Way:
    """Finds the way to a URL by HTTPS_PROXY and NO_PROXY; by HTTP_PROXY for plain http.

    Raises ValueError, which names the variable, if the way leads through an invalid
    proxy.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    for name in (f"{scheme}_proxy".upper(), f"{scheme}_proxy"):
        if text := environment.get(name):
            excluded = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
            port = parts.port or (443 if scheme == "https" else 80)
            if is_excluded(excluded, (parts.hostname or "").lower(), str(port)):
                return Way(None, "NO_PROXY")
            try:
                return Way(parse_proxy(text), name)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return Way()


def is_excluded(no_proxy: str, host: str, port: str) -> bool:
    """Whether a list leaves out a host on a port. The host is in lower case.

    An entry is `*`, an IP address, a network in CIDR notation, a domain (the domain
    and all names in it), or `.domain` or `*.domain` (all names in it). An address or a
    domain may end in `:port`. Any other entry is ignored.
    """
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return "*" in entries or any(_matches(entry, host, port, address) for entry in entries)


def _matches(entry: str, host: str, port: str, address: _Address | None) -> bool:
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    name, wanted = _split(entry)
    if wanted not in {"", port}:
        return False
    if (single := _address(name)) is not None:
        return address == single
    name = name[1:] if name.startswith("*.") else name
    if name.startswith("."):
        return host.endswith(name)
    return name != "" and (host == name or host.endswith(f".{name}"))


def _split(entry: str) -> tuple[str, str]:
    """Splits HOST:PORT or [HOST]:PORT. Any other entry is a host as a whole, without a port."""
    host, colon, port = entry.rpartition(":")
    if colon and host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if not colon or set(":[]") & set(host):
        return entry, ""
    return host, port


def _address(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _network(text: str) -> IPv4Network | IPv6Network | None:
    if not text.rpartition("/")[2].isdecimal():
        return None
    try:
        network = ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        return ip_network((mapped, network.prefixlen - 96)) if mapped else network
    return network
