"""Settings that kmproxy makes for the whole process. No other module changes a library globally.

Must not know which connections are made.
"""

from __future__ import annotations

from asyncio.sslproto import SSLProtocol

TLS_BUFFER = 1 << 15
"""Bytes that a TLS connection reads at once: two records. asyncio's own size is 256 KiB, and every
idle connection holds that twice. Each kubelet has one idle connection."""


def bound_tls_buffers() -> None:
    """Lets every TLS connection that is made from now on read `TLS_BUFFER` bytes at once."""
    SSLProtocol.max_size = TLS_BUFFER
