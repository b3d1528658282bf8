"""The end of certificates, compared with OpenSSL."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from kmproxy.web.expiry import earliest_expiry


def ends(moment):
    """The PEM of a certificate that ends at this time."""
    return trustme.CA().issue_cert("x.example", not_after=moment).cert_chain_pems[0].bytes()


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2999])
def test_both_spellings_of_time(year):
    """Two digits of the year before 2050, four digits since."""
    moment = datetime(year, 2, 28, 12, 34, 56, tzinfo=UTC)
    assert earliest_expiry(ends(moment)) == moment.timestamp()


def test_it_is_what_openssl_reads(tmp_path):
    """The same second as OpenSSL, for a certificate in the middle of other text."""
    pem = b"text before\n" + ends(datetime.now(UTC) + timedelta(days=3)) + b"and after"
    (tmp_path / "pem").write_bytes(pem)
    told = ssl._ssl._test_decode_cert(str(tmp_path / "pem"))["notAfter"]
    assert earliest_expiry(pem) == ssl.cert_time_to_seconds(told)


def test_the_first_of_a_chain_to_end():
    """The earliest end of a chain counts, in any order."""
    early, late = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    for chain in ((early, late), (late, early)):
        assert earliest_expiry(b"\n".join(map(ends, chain))) == early.timestamp()


def test_what_is_no_certificate():
    """ValueError for empty text, other text, and a certificate cut anywhere."""
    whole = ssl.PEM_cert_to_DER_cert(ends(datetime(2027, 1, 1, tzinfo=UTC)).decode())
    for cut in range(0, len(whole) - 1, 7):
        with pytest.raises(ValueError):
            earliest_expiry(ssl.DER_cert_to_PEM_cert(whole[:cut]).encode())
    for pem in (b"", b"text", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"):
        with pytest.raises(ValueError):
            earliest_expiry(pem)
