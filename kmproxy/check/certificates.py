"""Examines the certificate that a TLS server shows, and finds flags that would accept it.

Knows handshakes and the content of a certificate. Must not know which requests a server
gets. A connection made here carries only the handshake: no request, no token, no client
certificate.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kmproxy.check.report import Certificate, Pinned, Trusted
from kmproxy.client.failures import certificate_message, is_name_mismatch, is_untrusted
from kmproxy.client.pinning import Pinning
from kmproxy.client.pins import Peer, Pin
from kmproxy.client.tls import Trust, plain_name
from kmproxy.config.http_options import Access
from kmproxy.config.sections import KubeletConfig
from kmproxy.config.types import Address
from kmproxy.errors import UpstreamError
from kmproxy.kube.identity import Identity
from kmproxy.sources.kubelet_trust import kubelet_trust

if TYPE_CHECKING:
    from cryptography import x509

_NAMES_TRIED = 5


@dataclass(frozen=True, slots=True)
class Server:
    """A TLS server: its address, its name in errors, and the trust that verifies it.

    `cluster` is the trust that would verify it without `--kubelet-ca-file`. It is None if no flag
    decides about the trust.
    """

    name: str
    host: str
    port: int
    server_name: str | None
    trust: Trust
    insecure: bool = False
    cluster: Trust | None = None

    @classmethod
    def of_kubelet(
        cls,
        config: KubeletConfig,
        identity: Identity,
        host: str,
        port: int,
        access: Access | None = None,
    ) -> Server:
        """A kubelet with direct access, configured by the `kubelet` section if there is one."""
        insecure, server_name = config.insecure_tls, config.server_name
        if access is not None:
            insecure = insecure or access.tls.insecure
            server_name = server_name or access.tls.server_name
            access = replace(access, tls=replace(access.tls, insecure=False))
        trust = kubelet_trust(replace(config, insecure_tls=False), identity.trust, access)
        return cls("kubelet", host, port, server_name, trust, insecure, identity.trust)

    @classmethod
    def of_apiserver(cls, identity: Identity, host: str, port: int) -> Server:
        """The API server whose node proxy is used."""
        trust = identity.trust
        return cls(
            "API server", host, port, identity.server_name, replace(trust, verify=True),
            not trust.verify,
        )  # fmt: skip

    async def examine(self, pinning: Pinning | None = None, peer: Peer | None = None) -> Trusted:
        """Examine the server's certificate, and whether kmproxy accepts it.

        With `pinning` and `peer`, the result also tells what would happen to the pin of this peer.
        The pin itself is not changed. Raises UpstreamError or CredentialError.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        shown = await self._handshake(context, self.server_name)
        certificate, digest = parse_certificate(shown), hashlib.sha256(shown).hexdigest()
        error = await self._refusal(self.trust, self.server_name)
        problem = "" if error is None else certificate_message(self.name, error)
        pin: Pinned | None = None
        flags: list[str] = []
        if pinning is not None and peer is not None:
            pin = "verified" if error is None else _pinned(pinning.book.pin(peer.key), digest)
            problem = pinning.message(peer, digest) if pin == "refused" else problem
        elif error is not None and self.cluster and not self.insecure:
            flags = [flag async for flag in self._accepting(error, certificate)]
        return Trusted(
            self.name,
            str(Address(self.host, self.port)),
            certificate,
            verified=error is None and not self.insecure,
            insecure=self.insecure,
            problem=problem,
            accepted_by=tuple(flags),
            digest=digest,
            pin=pin,
        )

    async def _accepting(self, error: ssl.SSLError, shown: Certificate) -> AsyncIterator[str]:
        """The flags that would accept the certificate. Where possible, they are tried first."""
        if is_name_mismatch(error):
            names = [name for name in shown.names if "*" not in name]
            for name in names[:_NAMES_TRIED]:
                if await self._refusal(self.trust, name) is None:
                    yield f"with --kubelet-server-name={name}"
                    break
        elif is_untrusted(error):
            cluster = self.cluster or self.trust
            if cluster != self.trust and await self._refusal(cluster, self.server_name) is None:
                yield "without --kubelet-ca-file, verified by the cluster's CA"
            yield f"with --kubelet-ca-file=FILE, where FILE holds {_signer(shown)}"
        yield "with --kubelet-tls-pin, as this kubelet's first certificate"
        yield "with --kubelet-insecure-tls, not verified"

    async def _refusal(self, trust: Trust, server_name: str | None) -> ssl.SSLError | None:
        """The error that refuses the certificate. None if it is accepted."""
        context = replace(trust, cert=None, key=None).context()
        try:
            await self._handshake(context, server_name)
        except ssl.SSLCertVerificationError as error:
            return error
        return None

    async def _handshake(self, context: ssl.SSLContext, server_name: str | None) -> bytes:
        """Connect, and disconnect after the handshake. Returns the server's certificate as DER.

        Raises ssl.SSLCertVerificationError if the certificate is refused, and UpstreamError if no
        connection can be made.
        """
        try:
            _, writer = await asyncio.open_connection(
                self.host,
                self.port,
                ssl=context,
                server_hostname=plain_name(server_name or self.host),
            )
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
            hint = "check that the port is right and speaks TLS"
            message = f"the {self.name}'s TLS handshake failed: {hint}"
            raise UpstreamError("tls", message) from error
        except OSError as error:
            number = error.errno or 0
            what = os.strerror(number).lower() if number > 0 else "no connection"
            message = f"the {self.name} at {self.host}:{self.port} cannot be reached: {what}"
            raise UpstreamError("unreachable", message) from error
        try:
            shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return shown or b""


def _pinned(pin: Pin | None, digest: str) -> Pinned:
    """What would happen with a certificate that no CA verifies, by the pin of its server."""
    if pin is None:
        return "pinned"
    return "same" if pin.digest == digest else "refused"


def _signer(shown: Certificate) -> str:
    return "this certificate" if shown.self_signed else f"the CA {shown.issuer}"


def parse_certificate(der: bytes) -> Certificate:
    """Parse a certificate in DER form. Raises UpstreamError if it cannot be read."""
    from cryptography import x509  # noqa: PLC0415 - the daemon does not need it

    try:
        found = x509.load_der_x509_certificate(der)
        return Certificate(
            found.subject.rfc4514_string(),
            found.issuer.rfc4514_string(),
            tuple(_alternative_names(found)),
            found.not_valid_before_utc.isoformat(),
            found.not_valid_after_utc.isoformat(),
            _is_self_signed(found),
        )
    except (ValueError, TypeError) as error:
        raise UpstreamError("garbage", "the certificate cannot be read") from error


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    from cryptography import x509  # noqa: PLC0415

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for name in found.value:
        if isinstance(name, x509.DNSName | x509.IPAddress):
            yield str(name.value)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
