"""The addresses that kmproxy may connect to, by Node objects and by the names of upstreams.

Knows the kinds of IP addresses, and the address of the API server. Must not know
how a name is resolved. A kubelet writes the addresses of its own Node object, so
kmproxy does not trust them: it sends its credential to these addresses. The addresses of
a name are written by the owner of its DNS zone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from kmproxy.config.types import Address, is_numeric_name, parse_host

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215: prefixes of any length inside
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_BROADCAST = ipaddress.ip_address("255.255.255.255")

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRule(Protocol):
    """A rule for the addresses that the names of servers resolve to."""

    @property
    def server_place(self) -> tuple[str, int] | None:
        """Host and port of a server that no name may lead to, or None."""

    def refusal(self, host: str, address: str) -> str | None:
        """The reason why kmproxy does not connect to an IP address of a host, or None."""

    def message(self, place: str, problem: str) -> str:
        """The error if a place, HOST:PORT, has no address that the rule accepts."""


@dataclass(frozen=True, slots=True)
class WrittenAddresses:
    """The rule for the upstream `name`: a special address is used only if its URL has it.

    A literal address and `localhost` are meant as they are written. A name must not resolve to a
    loopback, link-local, unspecified, multicast or broadcast address: it would lead to a server of
    kmproxy's own machine, or to the metadata of a cloud.
    """

    name: str

    @property
    def server_place(self) -> None:
        """None: the API server is not special, as an upstream gets no credential of kmproxy."""
        return

    def refusal(self, host: str, address: str) -> str | None:
        """The reason why kmproxy does not connect to an IP address of a host, or None."""
        if host.lower().rstrip(".") == "localhost":
            return None
        with suppress(ValueError):
            ipaddress.ip_address(host)
            return None
        return special(ipaddress.ip_address(address))

    def message(self, place: str, problem: str) -> str:
        """The error if a place, HOST:PORT, has no address that the rule accepts."""
        return (
            f"kmproxy does not connect to the {self.name} by the name {place}: {problem}; "
            "write the address in its URL"
        )


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """The rule for the addresses of nodes. `server` returns the current URL of the API server.

    The rule refuses addresses whose meaning depends on the machine that uses them:
    loopback, link-local, unspecified, multicast and broadcast addresses, also
    inside an IPv6 address. `Connector` also refuses the API server's host together
    with the API server's port (`server_place`). A node may share the host alone.
    Loopback is allowed if the API server itself is on loopback: nodes, API server
    and kmproxy are then on one machine.
    """

    server: Callable[[], str]

    @property
    def server_place(self) -> tuple[str, int]:
        """The API server's host and port."""
        parts = urlsplit(self.server())
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def _local(self) -> bool:
        return Address(*self.server_place).loopback

    def problem(self, host: str, port: int | None) -> str | None:
        """The reason why host and port cannot be a node's address, or None.

        The method reads the spelling only. When a name is resolved, `refusal` checks its
        addresses.
        """
        if port is not None and not 0 < port < 65536:
            return f"{port} is not a port"
        try:
            parse_host(host)
        except ValueError:
            return f"{host[:80]!r} is neither a host name nor an IP address"
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            name = host.lower().rstrip(".")
            if is_numeric_name(host):
                return f"{host[:80]!r} is neither a host name nor an IP address"
            if (name == "localhost" or name.endswith(".localhost")) and not self._local:
                return f"{host} is a loopback address"
            return None
        return "the address has a scope" if "%" in host else self._kind(address)

    def refusal(self, host: str, address: str) -> str | None:  # noqa: ARG002 - of any host
        """The reason why kmproxy does not connect to a node at this IP address, or None."""
        return self._kind(ipaddress.ip_address(address))

    def message(self, place: str, problem: str) -> str:
        """The error if a place, HOST:PORT, has no address that the rule accepts."""
        return f"kmproxy does not connect to {place}, the address in a Node object: {problem}"

    def _kind(self, address: _IP) -> str | None:
        return special(address, loopback=self._local)


def special(address: _IP, *, loopback: bool = False) -> str | None:
    """The reason why an address depends on the machine that uses it, or is no server's, or None.

    With `loopback`, a loopback address is like any other.
    """
    for plain in embedded(address):
        for refused, kind in (
            (plain.is_loopback and not loopback, "a loopback"),
            (plain.is_link_local, "a link-local"),
            (plain.is_multicast, "a multicast"),
            (plain == _BROADCAST, "a broadcast"),
            (plain.is_unspecified or plain in _THIS_NETWORK, "an unspecified"),
        ):
            if refused:
                return f"{address} is {kind} address"
    return None


def embedded(address: _IP | str) -> frozenset[_IP]:
    """The IPv4 address inside an IPv6 address (mapped, 6to4, NAT64), else the address itself.

    With a local prefix of NAT64 there are several: for each length that the prefix may have.
    """
    if isinstance(address, str):
        address = ipaddress.ip_address(address)
    if isinstance(address, ipaddress.IPv4Address):
        return frozenset({address})
    if address in _NAT64:
        return frozenset({ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)})
    if address in _LOCAL_NAT64:
        return _of_local_nat64(address)
    return frozenset({address.ipv4_mapped or address.sixtofour or address})


def _of_local_nat64(address: ipaddress.IPv6Address) -> frozenset[_IP]:
    """The IPv4 addresses that RFC 6052 may read in an address, with prefixes of 48 to 96 bits.

    Byte 8 never belongs to the IPv4 address. An address that begins or ends with zero is read from
    bytes that fill another one, so it counts only if there is no other.
    """
    data = address.packed
    places = (data[6:8] + data[9:11], data[7:8] + data[9:12], data[9:13], data[12:])
    found = [ipaddress.IPv4Address(place) for place in places if place[0] and place[3]]
    return frozenset(found or [ipaddress.IPv4Address(data[12:])])
