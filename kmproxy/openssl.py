"""What clients' and servers' TLS contexts are both made of: authorities, versions, files in memory.

Knows PEM and SSL contexts. Must not know which files there are, nor when they are read.
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
    """Trust each certificate of a bundle by itself, an intermediate or a leaf too, as Go does.

    Those that cannot be read are left out: returns which, as text for a warning,
    empty if all can be. Raises ValueError if none can.
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
        raise ValueError("there is no CA certificate in it")
    return f"certificate {', '.join(unread)} of {len(blocks)}" if unread else ""


@contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """The path of a file that holds `data` and is on no disk. Linux only.

    OpenSSL reads certificate chains from files only. Certificate, key and CA are so of
    one reading, whatever happens to their files meanwhile.
    """
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
