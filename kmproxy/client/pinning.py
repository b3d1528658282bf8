"""How a kubelet's certificate is judged with `--kubelet-tls-pin`, before anything is sent.

Knows aiohttp's check of a new connection, which comes after the handshake and
before the request. Must not know who is asked for what, nor where pins are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from dataclasses import dataclass

import aiohttp

from kmproxy.client.pins import BY_CA, Peer, PinBook
from kmproxy.client.tls import TlsContext
from kmproxy.errors import UpstreamError
from kmproxy.telemetry import Telemetry

_SHOWN = 16
"""Hexadecimal digits of a digest that a message shows."""

_log = logging.getLogger(__package__)


class CertificateRefusedError(aiohttp.ClientError):
    """A certificate is not the pinned one; `digest` is its own."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__("another certificate is pinned")


class Judge(aiohttp.Fingerprint):
    """Accepts or refuses the certificate of one peer's new connection.

    aiohttp keeps connections apart by it: one is used again only for the same
    peer, the same kind of judge and the same contexts. `context` is for the
    handshake, `verifying` for an HTTPS proxy on the way, which is no peer.
    """

    def __init__(
        self, context: ssl.SSLContext, verifying: ssl.SSLContext, peer: Peer, book: PinBook
    ) -> None:
        super().__init__(bytes(32))  # it compares nothing itself
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
    """For a handshake that succeeds only if a CA verifies the certificate and its names."""

    def check(self, transport: asyncio.Transport) -> None:
        """Note that this peer has certificates of a CA."""
        del transport  # the handshake has said all
        self.book.verified(self.peer)


class ByPin(Judge):
    """For a handshake that verifies nothing."""

    def check(self, transport: asyncio.Transport) -> None:
        """Raises CertificateRefusedError unless the certificate is pinned, or the first."""
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        digest = hashlib.sha256(der).hexdigest()
        new = self.book.pin(self.peer.key) is None
        if not self.book.accept(self.peer, digest):
            transport.abort()  # a close would send a TLS alert, and wait for one
            raise CertificateRefusedError(digest)
        if new:
            what = (
                "the certificate of the kubelet of %s is pinned, as no CA verifies it: SHA-256 %s"
            )
            _log.info(what, self.peer.name, digest)


@dataclass(frozen=True, slots=True)
class Pinning:
    """What kubelets' certificates are judged by besides a CA. `path` is where pins are kept."""

    book: PinBook
    unverified: TlsContext
    telemetry: Telemetry
    path: str | None

    def judges(self, peer: Peer, verifying: ssl.SSLContext) -> tuple[Judge, Judge]:
        """Both judges, first the one that will probably accept."""
        by_ca = ByCa(verifying, verifying, peer, self.book)
        by_pin = ByPin(self.unverified.current(), verifying, peer, self.book)
        pin = self.book.pin(peer.key)
        return (by_ca, by_pin) if pin is None or pin.digest == BY_CA else (by_pin, by_ca)

    def refusal(self, peer: Peer, shown: str) -> UpstreamError:
        """The error for a certificate that neither judge accepts; it is counted."""
        pin = self.book.pin(peer.key)
        by_ca = pin is not None and pin.digest == BY_CA
        self.telemetry.kubelet_certificates_refused.labels(
            "unverified" if by_ca else "changed"
        ).inc()
        return UpstreamError("tls", self.message(peer, shown))

    def message(self, peer: Peer, shown: str) -> str:
        """Why a certificate of this digest is refused, and what to do if it should not be."""
        pin = self.book.pin(peer.key)
        before = pin.digest if pin is not None else ""
        first = "verified by a CA" if before == BY_CA else f"SHA-256 {before[:_SHOWN]}..."
        line = f"without its line in {self.path}" if self.path else "to forget the first"
        return (
            f"the kubelet of {peer.name} shows another certificate than before, which no CA "
            f"verifies (SHA-256 {shown[:_SHOWN]}..., before {first}): if that is right, "
            f"restart kmproxy {line}"
        )
