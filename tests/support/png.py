"""Makes a PNG of a browser small: at most 256 colours, as a screenshot of text needs no more."""

from __future__ import annotations

import struct
import zlib
from collections import Counter

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def reduced(data):
    """The picture with a palette. Rare colours become the nearest of the common ones."""
    width, height, channels, pixels = _decode(data)
    if channels == 4:
        pixels = [pixels[at : at + 3] for at in range(0, len(pixels), 4)]
    else:
        pixels = [pixels[at : at + 3] for at in range(0, len(pixels), 3)]
    counts = Counter(pixels)
    palette = _palette([colour for colour, _ in counts.most_common()])
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in counts.keys() - index.keys():
        index[colour] = min(range(len(palette)), key=lambda number: _apart(colour, palette[number]))
    row = range(0, width * height, width)
    lines = b"".join(b"\0" + bytes([index[each] for each in pixels[at : at + width]]) for at in row)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"PLTE", b"".join(palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def _palette(colours):
    """At most 256 of the colours, the common ones first. No two of them look alike."""
    chosen = []
    for each in colours:
        if len(chosen) < 256 and all(_apart(each, other) > 30 for other in chosen):
            chosen.append(each)
    return chosen


def _apart(one, other):
    return sum((left - right) ** 2 for left, right in zip(one, other, strict=True))


def _chunk(kind, body):
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def _decode(data):
    """Width, height, bytes of a pixel, and the pixels of an 8-bit RGB or RGBA picture."""
    assert data.startswith(_SIGNATURE)
    at, body, head = len(_SIGNATURE), b"", b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + size]
        head = content if kind == b"IHDR" else head
        body += content if kind == b"IDAT" else b""
        at += size + 12
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head)
    assert (depth, interlace) == (8, 0)
    channels = {2: 3, 6: 4}[colour]
    raw, stride = zlib.decompress(body), width * channels
    rows, before = [], bytes(stride)
    for number in range(height):
        begin = number * (stride + 1)
        row = bytearray(raw[begin + 1 : begin + 1 + stride])
        _unfilter(raw[begin], row, before, channels)
        rows.append(bytes(row))
        before = rows[-1]
    return width, height, channels, b"".join(rows)


def _unfilter(kind, row, above, step):
    for at in range(len(row)):
        left = row[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        if kind == 1:
            row[at] = (row[at] + left) & 255
        elif kind == 2:
            row[at] = (row[at] + above[at]) & 255
        elif kind == 3:
            row[at] = (row[at] + (left + above[at]) // 2) & 255
        elif kind == 4:
            row[at] = (row[at] + _paeth(left, above[at], corner)) & 255


def _paeth(left, above, corner):
    guess = left + above - corner
    return min(
        (abs(guess - left), 0, left),
        (abs(guess - above), 1, above),
        (abs(guess - corner), 2, corner),
    )[2]
