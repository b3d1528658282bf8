"""Reads the expiry of certificates: the part of X.509 that this needs.

Knows PEM, the DER around a certificate's validity, and the two formats of time in
it. Must not know the use of a certificate. It verifies no certificate.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def earliest_expiry(pem: bytes) -> float:
    """The earliest expiry of the certificates in `pem`, in seconds since the epoch.

    Raises ValueError if `pem` has no certificate, or an unreadable one.
    """
    return min(_expiry(binascii.a2b_base64(match[1])) for match in _PEM.finditer(pem))


def _expiry(der: bytes) -> float:
    """The notAfter of a certificate, in seconds since the epoch."""
    _, certificate, _ = _element(der)
    _, rest, _ = _element(certificate)
    tag, _, after = _element(rest)
    if tag == _VERSION:
        rest = after
    for _ in ("serial number", "algorithm", "issuer"):
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("the data is not a certificate")
    _, _, rest = _element(validity)
    tag, moment, _ = _element(rest)
    return _seconds(tag, moment.decode("ascii"))


def _seconds(tag: int, moment: str) -> float:
    if tag == _UTC_TIME:  # two digits of the year: RFC 5280 puts 50 to 99 before 2000
        moment = ("19" if moment[:2] >= "50" else "20") + moment
    elif tag != _GENERALIZED_TIME:
        raise ValueError("the data is not a certificate")
    return datetime.strptime(moment, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element of DER, and the bytes after it."""
    if len(data) < 2:
        raise ValueError("the certificate is cut short")
    tag, size, start = data[0], data[1], 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("the certificate is cut short")
    return tag, data[start : start + size], data[start + size :]
