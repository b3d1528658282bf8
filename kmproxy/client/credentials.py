"""Credentials of requests: an Authorization header, made of text that rotates on disk.

Knows the schemes that HTTP clients of Prometheus take. Must not know what is asked with
one. Text that has rotated badly is not used: the last good one stays, with a log line
and a metric. No `repr` and no error shows a credential.
"""

from __future__ import annotations

import base64
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.client.tls import Clock
from kmproxy.config.types import File, Source
from kmproxy.errors import CredentialError

if TYPE_CHECKING:
    from kmproxy.config.proxies import Headers
    from kmproxy.telemetry import Telemetry

TOKEN_AGE = 60.0
"""Seconds after which a token is read again; the kubelet rewrites it well before it expires."""

_log = logging.getLogger(__package__)


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


class Header(Credential):
    """A credential that is sent as it is, behind the name of its scheme."""

    def __init__(self, scheme: str, text: RotatingText) -> None:
        self._scheme = scheme
        self._text = text

    def __repr__(self) -> str:
        return f"<Header {self._scheme} {self._text!r}>"

    async def authorization(self, *, anew: bool = False) -> str | None:
        """The scheme and the text; the last good one if a new one is not."""
        return f"{self._scheme} {self._text.current(anew=anew)}"


class Login(Credential):
    """A user name and a password (RFC 7617)."""

    def __init__(self, username: RotatingText, password: RotatingText) -> None:
        self._username = username
        self._password = password

    def __repr__(self) -> str:
        return f"<Login {self._username!r}>"

    async def authorization(self, *, anew: bool = False) -> str | None:
        """Both as UTF-8; the last good one if a new one is not."""
        pair = f"{self._username.current(anew=anew)}:{self._password.current(anew=anew)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def is_password(text: str) -> bool:
    """Whether text can be a password; one that a file holds is not empty."""
    return not any(ord(character) < 32 or ord(character) == 127 for character in text)


def is_user_name(text: str) -> bool:
    """Whether text can be a user name, which ends at the first colon."""
    return bool(text) and ":" not in text and is_password(text)
