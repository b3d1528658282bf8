"""Bearer tokens from OAuth2's client credentials grant (RFC 6749, 4.4).

Knows the grant, and when to request a new token. Must not know the use of the
tokens. No message shows a token, a secret or a response.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from kmproxy.client.credentials import Credential, RotatingText, is_token
from kmproxy.client.tls import Clock
from kmproxy.client.upstream import Upstream
from kmproxy.config.http_options import OAuth2
from kmproxy.errors import UpstreamError
from kmproxy.shared import SharedCall

if TYPE_CHECKING:
    from kmproxy.telemetry import CredentialErrors

TIMEOUT = 10.0
"""Seconds that a request for a token may take."""

PAUSE = 5.0
"""Seconds after a failed request before the next request."""

SETTLED = 10.0
"""Age in seconds below which a refused token is not replaced: another one would be refused, too."""

MAX_ANSWER = 1 << 20

_FORM = "application/x-www-form-urlencoded"
_ERRORS = {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",
           "unsupported_grant_type", "invalid_scope"}  # fmt: skip

_log = logging.getLogger(__package__)


class _Answer(msgspec.Struct):
    access_token: str = ""
    token_type: str = "Bearer"  # noqa: S105 - it is the kind, not the token
    expires_in: float | str | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    secret: str
    asked_at: float
    renew_at: float
    ends_at: float


class ClientCredentials(Credential):
    """The token of one client: cached, renewed before it expires, by one request at a time.

    A token stays in use while it is valid, even if its renewal fails. A token
    without an expiry is used until an upstream refuses it. `section` is the path of
    the configuration's section, for error messages.
    """

    def __init__(
        self,
        config: OAuth2,
        secret: RotatingText,
        endpoint: Upstream,
        *,
        clock: Clock,
        errors: CredentialErrors,
        section: str = "kubelet",
    ) -> None:
        self._config = config
        self._section = section
        self._secret = secret
        self._endpoint = endpoint
        self._clock = clock
        self._errors = errors
        self._token: _Token | None = None
        self._failure: UpstreamError | None = None
        self._try_at = -math.inf
        self._in_header: bool | None = None  # None: the server's accepted way is not known yet
        self._renewal = SharedCall(self._ask)

    def __repr__(self) -> str:
        host = urlsplit(self._config.token_url).hostname  # the rest of the URL may hold a secret
        return f"<ClientCredentials {self._config.client_id} at {host}>"

    async def authorization(self, *, anew: bool = False) -> str | None:
        """The bearer token. Raises UpstreamError if no token can be obtained."""
        now, token = self._clock(), self._token
        if token is None or now >= token.ends_at or (anew and now >= token.asked_at + SETTLED):
            if self._may_ask():
                await self._renewal.result()
            if self._token is None or self._token is token:
                raise self._unavailable()
        elif (now >= token.renew_at or self._secret.current() != token.secret) and self._may_ask():
            self._renewal.begin()
        return f"Bearer {self._token.text}" if self._token else None

    async def close(self) -> None:
        """Cancel the running request, if any."""
        await self._renewal.close()

    def _may_ask(self) -> bool:
        """Whether a request may begin: not within `PAUSE` after a failure."""
        return self._clock() >= self._try_at

    def _unavailable(self) -> UpstreamError:
        """The last failure, as a new error object for each waiting request."""
        failure = self._failure or UpstreamError("oauth2", "no OAuth2 token")
        return UpstreamError("oauth2", str(failure), status=failure.status)

    async def _ask(self) -> None:
        """Replace the token, or store the failure."""
        now, secret = self._clock(), self._secret.current()
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self._answer(secret)
        except (UpstreamError, TimeoutError) as error:
            why = str(error) or f"the token endpoint took over {TIMEOUT:g} s"
            status = error.status if isinstance(error, UpstreamError) else 504
            self._failure = UpstreamError("oauth2", f"no OAuth2 token: {why}", status=status)
            self._try_at = self._clock() + PAUSE
            self._errors.count("oauth2")
            _log.warning("%s", self._failure)
            return
        life = _seconds(answer.expires_in)
        renew_at = now + life - min(300.0, life / 5) if life < math.inf else math.inf
        ends_at = now + life - min(10.0, life / 10) if life < math.inf else math.inf
        self._token = _Token(answer.access_token, secret, now, renew_at, ends_at)
        self._failure = None

    async def _answer(self, secret: str) -> _Answer:
        """The response with a token. It tries the way that worked before, else header, then body.

        "Way" is the place of the client's secret: the Authorization header or the
        body. Raises UpstreamError if the server issues no token.
        """
        ways = (True, False) if self._in_header is None else (self._in_header,)
        for in_header in ways:
            status, answer = await self._exchange(secret, in_header=in_header)
            if status == 200 and answer.access_token:
                self._in_header = in_header
                return answer
            if status not in {400, 401}:
                break
        error = answer.error if answer.error in _ERRORS else None
        said = f"{status} {error}" if error else f"{status}"
        raise UpstreamError(
            "oauth2", f"the token endpoint answered {said}, see {self._section}.oauth2"
        )

    async def _exchange(self, secret: str, *, in_header: bool) -> tuple[int, _Answer]:
        config = self._config
        form = [("grant_type", "client_credentials")]
        if config.scopes:
            form.append(("scope", " ".join(config.scopes)))
        form += [(name, value.reveal()) for name, value in config.endpoint_params]
        authorization = None
        if in_header:
            pair = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form += [("client_id", config.client_id), ("client_secret", secret)]
        async with self._endpoint.post(
            config.token_url,
            urlencode(form).encode(),
            content_type=_FORM,
            authorization=authorization,
            silence=TIMEOUT,
        ) as response:
            body = bytearray()
            async for piece in self._endpoint.pieces(response):
                body += piece
                if len(body) > MAX_ANSWER:
                    raise UpstreamError("oauth2", "the token endpoint's answer is too long")
            return response.status, _parse(response.status, bytes(body))


def _parse(status: int, body: bytes) -> _Answer:
    """The endpoint's response, decoded. For an error that is not JSON, an empty `_Answer`."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if status != 200:
            return _Answer()
        raise UpstreamError("oauth2", "the token endpoint's answer holds no token") from error
    if answer.access_token and not is_token(answer.access_token):
        raise UpstreamError("oauth2", "the token endpoint's answer holds no valid token")
    if status == 200 and answer.token_type.lower() != "bearer":
        raise UpstreamError("oauth2", "the token of the token endpoint is not a bearer token")
    return answer


def _seconds(expires_in: float | str | None) -> float:
    """The lifetime of a token in seconds. Without a valid one, infinite, as in Go's oauth2."""
    try:
        seconds = float(expires_in or 0)
    except ValueError:
        return math.inf
    return seconds if 0 < seconds < math.inf else math.inf
