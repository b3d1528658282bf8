"""Explains failed connections: the reason, and a line that names the remedy.

Knows the errors of aiohttp and OpenSSL. Must not know requests.
"""

from __future__ import annotations

import errno
import os
import ssl

import aiohttp

from kmproxy.errors import UpstreamError

_SELF_SIGNED = {18, 19, 20, 21}  # X509_V_ERR_*: no chain to a trusted CA
_NAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_EXPIRED = 10


def connection_failure(name: str, error: Exception) -> UpstreamError:
    """The UpstreamError for a failed connection."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as wrong):
            return UpstreamError("tls", certificate_message(name, wrong))
        case aiohttp.ClientConnectorSSLError():
            hint = "check that the port is right and speaks TLS"
            return UpstreamError("tls", f"the {name}'s TLS handshake failed: {hint}")
        case aiohttp.ClientHttpProxyError(status=status):
            what = "wants a user and password" if status == 407 else "does not connect"
            message = f"the proxy before the {name} {what} ({status})"
            return UpstreamError("proxy", message)
        case TimeoutError():
            return UpstreamError("timeout", f"the {name} sent nothing for too long", status=504)
        case aiohttp.ClientConnectorError(host=host, port=port, os_error=os_error):
            reason = "refused" if os_error.errno == errno.ECONNREFUSED else "unreachable"
            what = os.strerror(os_error.errno).lower() if os_error.errno else "no connection"
            if isinstance(error, aiohttp.ClientProxyConnectionError):
                reason, name = "proxy", f"proxy before the {name}"
            message = f"the {name} at {host}:{port} cannot be reached: {what}"
            return UpstreamError(reason, message)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return UpstreamError("disconnected", f"the {name} closed the connection")
        case aiohttp.ClientPayloadError():
            return UpstreamError("truncated", f"the {name}'s answer was cut short")
        case _:
            return UpstreamError("protocol", f"the {name}'s answer is not valid HTTP")


def is_untrusted(error: ssl.SSLError) -> bool:
    """Whether a certificate was refused because no trusted CA signed it."""
    return getattr(error, "verify_code", 0) in _SELF_SIGNED


def is_name_mismatch(error: ssl.SSLError) -> bool:
    """Whether a certificate was refused because it is for other names."""
    return getattr(error, "verify_code", 0) in _NAME_MISMATCH


def certificate_message(name: str, error: ssl.SSLError) -> str:
    """The reason for refusing the certificate of a "kubelet" or "API server", and the remedy."""
    why = getattr(error, "verify_message", None) or "the reason is unknown"
    message = f"the {name}'s certificate does not verify: {why.rstrip('.')}"
    if name == "API server":
        return f"{message}; check the CA of the kubeconfig or service account"
    if name != "kubelet":
        return f"{message}; see its tls_config"
    if getattr(error, "verify_code", 0) == _EXPIRED:
        return f"{message}; renew it, or give --kubelet-tls-pin"
    if is_name_mismatch(error):
        return f"{message}; give --kubelet-server-name, or --kubelet-tls-pin"
    if is_untrusted(error):
        return f"{message}; give its CA by --kubelet-ca-file, or --kubelet-tls-pin"
    return f"{message}; see --kubelet-ca-file and --kubelet-tls-pin"
