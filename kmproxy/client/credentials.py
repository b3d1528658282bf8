"""Credentials of requests: an Authorization header, made of text that rotates on disk.

Knows the schemes that HTTP clients of Prometheus support. Must not know the requests that
a credential is sent with. If a new text is unusable, the last good text stays in use, with
a log line and a metric. No `repr` and no error shows a credential.
"""

from __future__ import annotations

import base64
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.client.tls import Clock
from kmproxy.config.types import File, Source
from kmproxy.errors import CredentialError

if TYPE_CHECKING:
    from kmproxy.config.proxies import Headers
    from kmproxy.telemetry import CredentialErrors

TOKEN_AGE = 60.0
"""Seconds after which a token is read again. The kubelet rewrites it well before it expires."""

_log = logging.getLogger(__package__)


class Credential(ABC):
    """The source of the Authorization header of requests.

    `headers` are sent with each request of this identity, also with a request that
    carries no credential: without them the request would act as another user.
    """

    headers: Headers = ()

    @abstractmethod
    async def authorization(self, *, anew: bool = False) -> str | None:
        """Return the value of the Authorization header, or None if there is no credential.

        With `anew` the value is read again. Callers ask for that after a 401.

        Raises CredentialError or UpstreamError if no value can be obtained.
        """


@dataclass(slots=True, eq=False)
class RotatingText:
    """The text of a secret. A text from a file is read again when it is `TOKEN_AGE` old.

    `what` names the secret in error messages. `accept` returns whether a text is
    valid. `credential` is the value of the metric's label. White space around a
    file's text is removed. The constructor reads the text for the first time and
    raises CredentialError if it is unusable.
    """

    source: Source
    what: str
    accept: Callable[[str], bool]
    _: KW_ONLY
    credential: str
    clock: Clock
    errors: CredentialErrors
    _text: str = field(init=False)
    _read_at: float = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.source, File):
            self.what = f"{self.what} {self.source}"
        self._text = self._read()
        self._read_at = self.clock()

    def __repr__(self) -> str:
        return f"<RotatingText of {self.what}>"

    def current(self, *, anew: bool = False) -> str:
        """The text, read at most `TOKEN_AGE` ago. If the read fails, the last good text."""
        if anew or self.clock() - self._read_at >= TOKEN_AGE:
            self._read_at = self.clock()
            try:
                self._text = self._read()
            except CredentialError as error:
                _log.warning("%s; the last good one stays in use", error)
                self.errors.count(error.credential)
        return self._text

    def _read(self) -> str:
        empty = False
        if not isinstance(self.source, File):
            text = self.source.reveal()
        else:
            try:
                text = Path(self.source.path).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise self._unusable(getattr(error, "strerror", None)) from error
            empty = not text  # a file is empty while another program writes it
        if empty or not self.accept(text):
            raise self._unusable()
        return text

    def _unusable(self, reason: str | None = None) -> CredentialError:
        reason = reason or f"the text is not a valid {self.credential}"
        return CredentialError(f"{self.what}: {reason}", credential=self.credential)


def is_header_value(text: str) -> bool:
    """Whether a text can be the value of a header."""
    return text.isascii() and text.isprintable() and bool(text)


def is_token(text: str) -> bool:
    """Whether a text can be the value of a header and has no space."""
    return is_header_value(text) and " " not in text


class Header(Credential):
    """A credential that is sent unchanged, after the name of its scheme."""

    def __init__(self, scheme: str, text: RotatingText) -> None:
        self._scheme = scheme
        self._text = text

    def __repr__(self) -> str:
        return f"<Header {self._scheme} {self._text!r}>"

    async def authorization(self, *, anew: bool = False) -> str | None:
        """The scheme and the text. If a new text is unusable, the last good text."""
        return f"{self._scheme} {self._text.current(anew=anew)}"


class Login(Credential):
    """A user name and a password (RFC 7617)."""

    def __init__(self, username: RotatingText, password: RotatingText) -> None:
        self._username = username
        self._password = password

    def __repr__(self) -> str:
        return f"<Login {self._username!r}>"

    async def authorization(self, *, anew: bool = False) -> str | None:
        """User name and password as UTF-8. If a new text is unusable, the last good text."""
        pair = f"{self._username.current(anew=anew)}:{self._password.current(anew=anew)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def is_password(text: str) -> bool:
    """Whether a text can be a password. `RotatingText` refuses an empty text from a file."""
    return not any(ord(character) < 32 or ord(character) == 127 for character in text)


def is_user_name(text: str) -> bool:
    """Whether a text can be a user name. It has no colon, as the first colon ends it."""
    return bool(text) and ":" not in text and is_password(text)
