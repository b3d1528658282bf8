"""Checks a kubelet's certificate with `--kubelet-tls-pin`, before a request is sent.

Knows aiohttp's check of a new connection, which runs after the handshake and
before the request. Must not know the content of requests, or how pins are stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from dataclasses import dataclass

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.client.pins import BY_CA, Peer, PinBook
from kmproxy.client.tls import TlsContext
from kmproxy.errors import UpstreamError

_SHOWN = 16
"""Hexadecimal digits that a message shows of a digest."""

_log = logging.getLogger(__package__)


class CertificateRefusedError(aiohttp.ClientError):
    """A certificate differs from the pinned one. `digest` is the digest of the refused one."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__("another certificate is pinned")


class Judge(aiohttp.Fingerprint):
    """Accepts or refuses the certificate of one peer's new connection.

    A judge is a part of aiohttp's key for pooled connections. aiohttp uses a
    connection again only for the same peer, the same class of judge and the same
    contexts. `context` is for the handshake with the peer. `verifying` is for the
    handshake with an HTTPS proxy before the peer.
    """

    def __init__(
        self, context: ssl.SSLContext, verifying: ssl.SSLContext, peer: Peer, book: PinBook
    ) -> None:
        super().__init__(bytes(32))  # aiohttp requires a digest; `check` does not use it
        self.context = context
        self.verifying = verifying
        self.peer = peer
        self.book = book

    def _identity(self) -> tuple[object, ...]:
        return type(self), self.context, self.verifying, self.peer.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Judge) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class ByCa(Judge):
    """Judges after a handshake that succeeds only if a CA verifies certificate and names."""

    def check(self, transport: asyncio.Transport) -> None:
        """Record that a CA verified a certificate of this peer."""
        del transport  # the handshake has verified the certificate
        self.book.verified(self.peer)


class ByPin(Judge):
    """Judges after a handshake that does not verify the certificate."""

    def check(self, transport: asyncio.Transport) -> None:
        """Accept the pinned certificate, and pin the first one of a peer.

        Raises CertificateRefusedError for any other certificate.
        """
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        digest = hashlib.sha256(der).hexdigest()
        new = self.book.pin(self.peer.key) is None
        if not self.book.accept(self.peer, digest):
            transport.abort()  # a close would send a TLS alert and wait for the peer's alert
            raise CertificateRefusedError(digest)
        if new:
            what = "pinned the certificate of the kubelet of %s, which no CA verifies: SHA-256 %s"
            _log.info(what, self.peer.name, digest)


class PinMetrics:
    """Counts refused certificates, and shows the number of pins."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "kmproxy_kubelet_certificates_refused",
            "Kubelets' certificates refused with --kubelet-tls-pin, by reason: 'changed' is not "
            "the pinned one, 'unverified' comes from a node that a CA verified before.",
            ["reason"],
            registry=registry,
        )
        self.pins = Gauge(
            "kmproxy_kubelet_pins",
            "Nodes whose certificates are remembered with --kubelet-tls-pin.",
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class Pinning:
    """Checks kubelets' certificates by pins besides a CA. `path` is the file of the pins."""

    book: PinBook
    unverified: TlsContext
    metrics: PinMetrics
    path: str | None

    def __post_init__(self) -> None:
        self.metrics.pins.set_function(lambda: len(self.book))

    def judges(self, peer: Peer, verifying: ssl.SSLContext) -> tuple[Judge, Judge]:
        """Both judges. The first is the one that will probably accept."""
        by_ca = ByCa(verifying, verifying, peer, self.book)
        by_pin = ByPin(self.unverified.current(), verifying, peer, self.book)
        pin = self.book.pin(peer.key)
        return (by_ca, by_pin) if pin is None or pin.digest == BY_CA else (by_pin, by_ca)

    def refusal(self, peer: Peer, shown: str) -> UpstreamError:
        """The error for a certificate that neither judge accepts. The method counts it."""
        pin = self.book.pin(peer.key)
        by_ca = pin is not None and pin.digest == BY_CA
        self.metrics.refused.labels("unverified" if by_ca else "changed").inc()
        return UpstreamError("tls", self.message(peer, shown))

    def message(self, peer: Peer, shown: str) -> str:
        """The reason for refusing a certificate of this digest, and the remedy."""
        pin = self.book.pin(peer.key)
        before = pin.digest if pin is not None else ""
        first = "verified by a CA" if before == BY_CA else f"SHA-256 {before[:_SHOWN]}..."
        line = f"after removing its line from {self.path}" if self.path else "to forget the first"
        return (
            f"the kubelet of {peer.name} shows another certificate than before, which no CA "
            f"verifies (SHA-256 {shown[:_SHOWN]}..., before {first}): if the change is yours, "
            f"restart kmproxy {line}"
        )
