"""gzip: negotiation, and that a damaged or cut body never looks complete."""

import gzip
import io
import random
import zlib

import pytest

from kmproxy.content_coding import MAX_MEMBERS, GzipDecoder, GzipEncoder, accepts_gzip
from kmproxy.errors import UpstreamError

TEXT = b"".join(b'm{namespace="n%d"} %d\n' % (n, n * n) for n in range(40))
ONE = gzip.compress(TEXT, mtime=0)
EMPTY = gzip.compress(b"", mtime=0)
MAX_PIECE = 1 << 18
CUTS = (None, 1, 7)


def pieces(data, cut=None):
    """The input whole, or in pieces of `cut` bytes."""
    step = cut or max(len(data), 1)
    return [data[at : at + step] for at in range(0, len(data), step)]


def decode(data, cut=None):
    """The decoded bytes of a whole stream, fed piece by piece."""
    decoder = GzipDecoder()
    decoded = [piece for part in pieces(data, cut) for piece in decoder.feed(part)]
    decoder.finish()
    return decoded


def named_member():
    """A member whose header holds a file name and a time, as gzip(1) writes it."""
    buffer = io.BytesIO()
    with gzip.GzipFile("metrics.prom", "wb", fileobj=buffer, mtime=1795208082) as file:
        file.write(TEXT)
    return buffer.getvalue()


def flipped(data, at):
    """The data with the lowest bit of one byte changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[len(data) + at + 1 if at < 0 else at + 1 :]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, br", True),
        ("deflate,gzip", True),
        ("gzip;q=1", True),
        ("gzip;q=1.000", True),
        ("gzip;q=0.001", True),
        ("gzip ; q=0.5 , *;q=0", True),
        ("deflate;q=1.0, gzip;Q=0.1", True),
        ("*", True),
        ("*;q=0.1", True),
        ("deflate, *", True),
        ("identity;q=0.5, *;q=0", False),
        ("", False),
        (",", False),
        ("identity", False),
        ("deflate, br, zstd", False),
        ("gzip;level=9;q=0", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;Q=0.0", False),
        ("gzip; q=0, *;q=1", False),
        ("*;q=1, gzip;q=0", False),
        ("*;q=0", False),
        ("notgzip", False),
        ("gzip2, bgzip", False),
        ("gzip;q=maybe", False),
        ("gzip;q=", False),
        ("gzip;q=nan", False),
    ],
)
def test_who_takes_gzip(header, accepted):
    """Accept-Encoding is read as in RFC 9110, with q-values and `*`."""
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (ONE, TEXT),
        (ONE + ONE, TEXT + TEXT),
        (ONE + EMPTY + ONE, TEXT + TEXT),
        (EMPTY, b""),
        (EMPTY + EMPTY, b""),
        (gzip.compress(TEXT, 0), TEXT),
        (gzip.compress(TEXT, 9), TEXT),
        (named_member(), TEXT),
    ],
)
def test_decoding(data, text, cut):
    """One member or several give their bytes, for every cut."""
    assert b"".join(decode(data, cut)) == text


@pytest.mark.parametrize("cut", CUTS)
def test_a_stream_that_is_cut_short_is_never_whole(cut):
    """A cut after any byte but the last is found, at the end at the latest."""
    for end in range(len(ONE)):
        with pytest.raises(UpstreamError) as caught:
            decode(ONE[:end], cut)
        assert caught.value.reason == "truncated"


def test_a_second_member_that_is_cut_short_is_seen():
    """A second member has to be complete, too."""
    for end in range(1, len(ONE)):
        with pytest.raises(UpstreamError):
            decode(ONE + ONE[:end])


def test_what_came_before_the_cut_is_passed_on():
    """Decoding streams: the first bytes do not wait for the end."""
    noise = random.Random(4).randbytes(1 << 20)
    data = gzip.compress(noise)
    decoder = GzipDecoder()
    decoded = b"".join(decoder.feed(data[: len(data) // 2]))
    assert len(decoded) > len(noise) // 3
    assert noise.startswith(decoded)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "data",
    [
        ONE + b"garbage that is no gzip member",
        ONE + b"x",
        ONE + b"\x1f",
        ONE + b"\0" * 512,
        flipped(ONE, -8),  # CRC
        flipped(ONE, -5),
        flipped(ONE, -4),  # length
        flipped(ONE, -1),
        flipped(ONE, 0),  # magic
        flipped(ONE, 1),
        flipped(ONE, 2),  # method
        flipped(ONE, len(ONE) // 2),
        flipped(ONE, -8) + ONE,
        TEXT,
        zlib.compress(TEXT),
        zlib.compressobj(wbits=-15).compress(TEXT) + b"\0" * 64,
        b"<html>not found</html>" * 9,
    ],
)
def test_damage_is_found(data, cut):
    """Trailing garbage, a wrong checksum or length, and other formats all fail."""
    with pytest.raises(UpstreamError) as caught:
        decode(data, cut)
    assert caught.value.reason in {"gzip", "truncated"}
    assert caught.value.status == 502


def test_noise_never_escapes_as_another_error():
    """For any bytes the decoder ends, decodes, or raises UpstreamError."""
    source = random.Random(9110)
    failures = 0
    for _ in range(2000):
        data = bytearray(ONE + ONE)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            decode(bytes(data))
        except UpstreamError:
            failures += 1
    assert failures > 1500


@pytest.mark.parametrize("cut", [None, 997])
@pytest.mark.parametrize(("behind", "more"), [(b"", b""), (ONE, TEXT)])
@pytest.mark.parametrize("size", [MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 2 * MAX_PIECE, 32 << 20])
def test_a_bomb_comes_in_bounded_pieces(size, behind, more, cut):
    """No decoded piece is over 256 KiB, and all bytes come."""
    decoded = decode(gzip.compress(bytes(size)) + behind, cut)
    assert max(map(len, decoded)) <= MAX_PIECE
    assert sum(map(len, decoded)) == size + len(more)
    assert b"" not in decoded


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("text", [b"", b"x", TEXT, TEXT * 999])
def test_encoding(text, cut):
    """Pieces are encoded to one gzip member that other programs decode."""
    encoder = GzipEncoder()
    step = cut and cut * 1000
    data = b"".join([encoder.feed(part) for part in pieces(text, step)]) + encoder.finish()
    inflater = zlib.decompressobj(31)
    assert inflater.decompress(data) == text
    assert inflater.eof
    assert inflater.unused_data == b""


def test_encoding_is_worth_it():
    """Metrics shrink to less than a fifth."""
    encoder = GzipEncoder()
    assert len(encoder.feed(TEXT * 99) + encoder.finish()) < len(TEXT) * 99 / 5


def test_an_encoding_without_its_end_is_not_whole():
    """If the source fails, the sent bytes cannot be taken for complete."""
    encoder = GzipEncoder()
    with pytest.raises(UpstreamError):
        decode(encoder.feed(TEXT * 999))


def test_members_without_end():
    """The number of members is bounded, because empty ones cost time."""
    assert b"".join(decode(EMPTY * (MAX_MEMBERS - 1) + ONE)) == TEXT
    with pytest.raises(UpstreamError, match="over 1000 members") as error:
        decode(EMPTY * MAX_MEMBERS + ONE, 500)
    assert error.value.reason == "gzip"
