"""As whom a request is made: what an identity is, and text that rotates on disk.

Must not know which identities there are, nor what is asked as one. No `repr` and
no error shows a credential.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.errors import CredentialError
from kmproxy.tls import Clock, Trust
from kmproxy.values import File, Source

if TYPE_CHECKING:
    from kmproxy.proxies import Headers, Proxy, Way
    from kmproxy.telemetry import Telemetry

TOKEN_AGE = 60.0
"""Seconds after which a token is read again; the kubelet rewrites it well before it expires."""

_log = logging.getLogger(__name__)


class Credential(ABC):
    """What authorizes a request.

    `headers` are sent beside it, also where no credential is: without them a
    request would be somebody else's.
    """

    headers: Headers = ()

    @abstractmethod
    async def authorization(self, *, anew: bool = False) -> str | None:
        """The value of an Authorization header; read `anew` after a 401.

        Raises CredentialError or UpstreamError if there is none to be had.
        """


class Identity(Credential):
    """As whom the API server at `server` is asked.

    `server` is a URL without a path's slash at its end. `server_name` is what
    its certificate must bear if not the host, `way` which forward proxy leads there,
    None if nothing speaks of any. `headers` are those of impersonation.
    """

    server: str
    server_name: str | None = None
    way: Way | None = None

    @property
    def proxy(self) -> Proxy | None:
        """The forward proxy on the way to the API server."""
        return self.way.proxy if self.way else None

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """The CA of the cluster, and a client certificate if that is what we have."""


class RotatingText:
    """A secret's text, read from its file again when it is `TOKEN_AGE` old.

    `what` is how problems call it, `accept` says which text can be one, and
    `credential` is the metric's label. White space around it does not count.
    The first read is at once. Raises CredentialError.
    """

    def __init__(
        self,
        source: Source,
        what: str,
        accept: Callable[[str], bool],
        *,
        credential: str,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._source = source
        self._what = f"{what} {source}" if isinstance(source, File) else what
        self._accept = accept
        self._credential = credential
        self._clock = clock
        self._telemetry = telemetry
        self._text = self._read()
        self._read_at = clock()

    def __repr__(self) -> str:
        return f"<RotatingText of {self._what}>"

    def current(self, *, anew: bool = False) -> str:
        """The text, read at most a minute ago; the last good one if that fails."""
        if anew or self._clock() - self._read_at >= TOKEN_AGE:
            self._read_at = self._clock()
            try:
                self._text = self._read()
            except CredentialError as error:
                _log.warning("%s; the last good one stays in use", error)
                self._telemetry.credential_errors.labels(error.credential).inc()
        return self._text

    def _read(self) -> str:
        empty = False
        if not isinstance(self._source, File):
            text = self._source.reveal()
        else:
            try:
                text = Path(self._source.path).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or f"it is not a {self._credential}"
                raise self._unusable(reason) from error
            empty = not text  # as it is while somebody writes it
        if empty or not self._accept(text):
            raise self._unusable(f"it is not a {self._credential}")
        return text

    def _unusable(self, reason: str) -> CredentialError:
        return CredentialError(f"{self._what}: {reason}", credential=self._credential)


def is_header_value(text: str) -> bool:
    """Whether text can stand in a header."""
    return text.isascii() and text.isprintable() and bool(text)


def is_token(text: str) -> bool:
    """Whether text can stand in a header as one word."""
    return is_header_value(text) and " " not in text
