"""TLS as a client: the trusted CAs, the client certificate, and the rotation of both.

Knows PEM, its files and SSL contexts. Must not know the servers. If new files are
unusable, the last good context stays in use, with a log line and a metric.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.config.types import File, Source
from kmproxy.errors import CredentialError
from kmproxy.openssl import VERSIONS, in_memory, trust_authorities

if TYPE_CHECKING:
    from kmproxy.config.http_options import TlsOptions
    from kmproxy.telemetry import CredentialErrors

LOOK_AGAIN = 60.0
"""Seconds after which a context's files are read again. Unchanged files keep the context."""

Clock = Callable[[], float]

_log = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True)
class Trust:
    """The sources of a client's TLS context: files or text. Files are read again as they rotate.

    Without `ca`, the system's CAs are trusted. Without `verify`, no certificate is
    verified. `minimum` is the lowest TLS version, by its name in Go and
    Prometheus: TLS12 or TLS13.
    """

    ca: Source | None = None
    cert: Source | None = None
    key: Source | None = None
    verify: bool = True
    minimum: str = "TLS12"

    def contents(self) -> tuple[bytes | None, ...]:
        """The current bytes of CA, certificate and key. Raises CredentialError."""
        sources = {"CA": self.ca, "client certificate": self.cert, "client key": self.key}
        found = []
        for what, source in sources.items():
            try:
                found.append(_content(source))
            except OSError as error:
                message = f"{what} {source}: {_reason(error)}"
                credential = "ca" if what == "CA" else "certificate"
                raise CredentialError(message, credential=credential) from error
        return tuple(found)

    def context(self) -> ssl.SSLContext:
        """A new context for a client. Raises CredentialError, whose message names the problem."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[self.minimum]
        context.set_alpn_protocols(["http/1.1"])
        try:
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif self.ca is None:
                context.load_default_certs()
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            elif unread := trust_authorities(context, read_source(self.ca)):
                _log.warning("CA %s: kmproxy cannot read, and leaves out, %s", self.ca, unread)
        except (OSError, ValueError) as error:
            raise CredentialError(f"CA {self.ca}: {_reason(error)}", credential="ca") from error
        try:
            if self.cert is not None:
                self._load_pair(context, self.cert, self.key)
        except OSError as error:
            pair = f"client certificate {self.cert} and key {self.key}"
            message = f"{pair}: {_reason(error)}"
            raise CredentialError(message, credential="certificate") from error
        return context

    def _load_pair(self, context: ssl.SSLContext, cert: Source, key: Source | None) -> None:
        """Load certificate and key. An encrypted key is an error: nobody can enter its password."""
        if isinstance(cert, File) and isinstance(key, File | None):
            file = key.path if key else None
            context.load_cert_chain(cert.path, file, password="")
            return
        pair = b"\n".join(filter(None, (_content(cert), _content(key))))
        with in_memory(pair) as file:
            context.load_cert_chain(file, password="")


class TlsContext:
    """A TLS context that follows its files. It reads them every `LOOK_AGAIN` seconds.

    A changed file leads to a new context. So an old CA is no longer trusted, and
    connections of the old context are not used again. `what` names the context in
    error messages.
    """

    def __init__(
        self, trust: Callable[[], Trust], what: str, *, clock: Clock, errors: CredentialErrors
    ) -> None:
        self._trust = trust
        self._what = what
        self._clock = clock
        self._errors = errors
        self._context: ssl.SSLContext | None = None
        self._looked_for: Trust | None = None
        self._made_of: tuple[object, ...] = ()
        self._look_at = -math.inf

    def __repr__(self) -> str:
        return f"<TlsContext of {self._what}>"

    def current(self) -> ssl.SSLContext:
        """The context to use now. Raises CredentialError if no good context ever existed."""
        trust = self._trust()
        if (
            self._context is not None
            and trust == self._looked_for
            and self._clock() < self._look_at
        ):
            return self._context
        self._looked_for = trust
        self._look_at = self._clock() + LOOK_AGAIN
        try:
            made_of = (trust, trust.contents())
            if self._context is None or made_of != self._made_of:
                self._context, self._made_of = trust.context(), made_of
        except CredentialError as error:
            if self._context is None:
                message = f"{self._what}: {error}"
                raise CredentialError(message, credential=error.credential) from error
            _log.warning("%s: %s; the last good one stays in use", self._what, error)
            self._errors.count(error.credential)
        return self._context


def client_trust(options: TlsOptions) -> Trust:
    """The trust for another server: the CA of the server's own options, else the system's CAs."""
    if options.insecure:
        return Trust(None, options.cert, options.key, verify=False, minimum=options.min_version)
    return Trust(options.ca, options.cert, options.key, minimum=options.min_version)


def read_source(source: Source) -> bytes:
    """The current bytes of a source: a file, or text of the configuration. Raises OSError."""
    return Path(source.path).read_bytes() if isinstance(source, File) else source.reveal().encode()


def _content(source: Source | None) -> bytes | None:
    return None if source is None else read_source(source)


def plain_name(host: str) -> str:
    """A host name as certificates contain it: without the dot at its end."""
    return host.rstrip(".")


def _reason(error: Exception) -> str:
    """The message of OpenSSL or the system, without OpenSSL's source lines."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
