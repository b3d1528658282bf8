"""Digests of several parts: keys under which results are remembered, and marks of what changed.

Must not know what the parts are.
"""

from __future__ import annotations

import hashlib


def digest(*parts: str | bytes, key: bytes = b"", kind: str = "") -> bytes:
    """Returns 32 bytes that differ for different parts, keys or kinds.

    With a secret `key` of 16 to 64 bytes, the digest reveals nothing about the parts, not even
    to a reader who can guess them. `kind` has at most 16 bytes. Each part counts with its length,
    so parts do not run together. A text may hold lone surrogates.
    """
    hashed = hashlib.blake2b(key=key, person=kind.encode(), digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.digest()
