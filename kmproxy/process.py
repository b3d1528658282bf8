"""What kmproxy sets for the whole process: nothing else changes a library in passing.

Must not know who connects.
"""

from __future__ import annotations

from asyncio.sslproto import SSLProtocol

TLS_BUFFER = 1 << 15
"""Bytes that a TLS connection reads at once, two records: asyncio's own 256 KiB are held, twice,
by every idle connection, of which there is one per kubelet."""


def bound_tls_buffers() -> None:
    """Let every TLS connection that is made from here on read `TLS_BUFFER` at once."""
    SSLProtocol.max_size = TLS_BUFFER
