"""Parts of the TLS contexts of clients and servers: authorities, versions, files in memory.

Knows PEM and SSL contexts. Must not know which files exist, or when they are read.
"""

from __future__ import annotations

import binascii
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
"""TLS versions by their names in the configurations of Go's programs and Prometheus."""

_BEGIN = re.compile(rb"^-----BEGIN CERTIFICATE-----[ \t]*\r?$", re.MULTILINE)


def trust_authorities(context: ssl.SSLContext, pem: bytes) -> str:
    """Trusts each certificate of a bundle by itself, even an intermediate or a leaf, as Go does.

    Certificates that cannot be read are left out. Returns their numbers as text for a
    warning, empty if all can be read. Raises ValueError if none can be read.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    blocks = _BEGIN.split(pem)[1:]
    unread = []
    for number, block in enumerate(blocks, 1):
        body, end, _ = block.partition(b"-----END CERTIFICATE-----")
        try:
            der = binascii.a2b_base64(b"".join(body.split()) if end else b"", strict_mode=True)
            context.load_verify_locations(cadata=der)
        except (ssl.SSLError, ValueError):
            unread.append(str(number))
    if len(unread) == len(blocks):
        raise ValueError("the file holds no CA certificate")
    return f"certificate {', '.join(unread)} of {len(blocks)}" if unread else ""


@contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """Yields the path of a file that holds `data` and is on no disk. Linux only.

    OpenSSL reads certificate chains from files only. With files in memory, certificate,
    key and CA come from one reading, whatever happens to their own files meanwhile.
    """
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
