"""Renews the tokens of an OIDC provider, with the library kubernetes_asyncio.

That library costs 65 MiB of memory. So only this module imports it, and only when a token is
renewed. Must not know what the token is used for. No token and no response is shown.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import aiohttp
import msgspec

from kmproxy.client.tls import Trust
from kmproxy.config.types import Secret
from kmproxy.errors import CredentialError
from kmproxy.kube.context_options import OidcProvider

LEEWAY = 300.0
"""A token is renewed this many seconds before it expires."""


class _Claims(msgspec.Struct):
    exp: float | None = None


class OidcTokens:
    """The tokens of one user. Renewed tokens are kept in memory; the kubeconfig is not changed."""

    def __init__(self, provider: OidcProvider) -> None:
        self._provider = provider
        self._id_token = provider.id_token
        self._refresh_token = provider.refresh_token

    def __repr__(self) -> str:
        return f"<OidcTokens of {self._provider.issuer}>"

    async def token(self, now: float) -> Secret:
        """Return a token that is valid at the Unix time `now`. Raises CredentialError."""
        token, end = self._id_token, self._end()
        if token is None or (end is not None and now >= end - LEEWAY):
            try:
                token = await self._renew()
            except CredentialError:
                if token is None or end is None or now >= end:
                    raise
        return token

    def _end(self) -> float | None:
        """Return the Unix time at which the token expires, or None if it names no time."""
        if self._id_token is None:
            return None
        parts = self._id_token.reveal().split(".")
        try:
            claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
            return msgspec.json.decode(claims, type=_Claims).exp
        except (IndexError, binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
            raise _problem("id-token is not a JSON Web Token") from None

    async def _renew(self) -> Secret:
        if self._refresh_token is None:
            raise _problem("id-token has expired, and refresh-token is missing")
        from kubernetes_asyncio.config.config_exception import ConfigException  # noqa: PLC0415
        from kubernetes_asyncio.config.openid import OpenIDRequestor  # noqa: PLC0415

        provider = self._provider
        context = Trust(ca=provider.ca).context()

        class Requestor(OpenIDRequestor):
            """The library's requestor, with our TLS context.

            The library alone verifies a certificate only if a CA is named.
            """

            def _get_connector(self) -> aiohttp.TCPConnector:
                return aiohttp.TCPConnector(ssl=context)

        requestor = Requestor(provider.client_id, provider.client_secret.reveal(), provider.issuer)
        try:
            answer = await requestor.refresh_token(self._refresh_token.reveal())
        except aiohttp.ClientConnectorCertificateError as error:
            what = "the certificate of idp-issuer-url does not verify"
            raise _problem(f"{what}; name its CA in idp-certificate-authority") from error
        except ConfigException as error:
            raise _problem("idp-issuer-url refuses to renew the token; log in again") from error
        except (
            aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, RecursionError,
        ) as error:  # fmt: skip
            raise _problem("idp-issuer-url gave no valid answer") from error
        token = _text(answer, "id_token")
        if token is None:
            raise _problem("the answer of idp-issuer-url has no id_token")
        self._id_token = token
        self._refresh_token = _text(answer, "refresh_token") or self._refresh_token
        return token


def _text(answer: Any, key: str) -> Secret | None:
    value = answer.get(key) if isinstance(answer, dict) else None
    return Secret(value) if isinstance(value, str) and value else None


def _problem(message: str) -> CredentialError:
    return CredentialError(f"auth-provider oidc: {message}", credential="kubeconfig")
