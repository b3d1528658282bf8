"""A slow and plain reading of the exposition format, one byte after the other.

It shares no code and no regular expression with the engine. `enrich` does to a
whole exposition what the engine must do to it however it arrives.
"""

from __future__ import annotations

LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
DIGITS = frozenset(b"0123456789")
BLANKS = frozenset(b" \t")


class NotUnderstood(Exception):  # noqa: N818 - it is an outcome here, not a failure
    """The line is no sample."""


class Line:
    """A sample line, read from left to right; positions are kept, bytes never changed."""

    def __init__(self, text):
        self.text = text
        self.at = 0
        self.pairs = []  # name, value, start of the quoted value, end of the pair
        self.read()

    def peek(self):
        return self.text[self.at] if self.at < len(self.text) else -1

    def take(self, byte):
        if self.peek() != ord(byte):
            raise NotUnderstood
        self.at += 1

    def blanks(self):
        start = self.at
        while self.peek() in BLANKS:
            self.at += 1
        return self.at > start

    def word(self, first, rest):
        start = self.at
        if self.peek() not in first:
            raise NotUnderstood
        while self.peek() in rest:
            self.at += 1
        return self.text[start : self.at]

    def string(self):
        self.take('"')
        value = bytearray()
        while True:
            byte = self.peek()
            self.at += 1
            if byte in {-1, 10}:
                raise NotUnderstood
            if byte == ord('"'):
                return bytes(value)
            if byte == ord("\\"):
                escaped = self.peek()
                self.at += 1
                if escaped in {-1, 10}:
                    raise NotUnderstood
                if escaped in b'\\"':
                    value.append(escaped)
                elif escaped == ord("n"):
                    value.append(10)
                else:
                    value += bytes([byte, escaped])
            else:
                value.append(byte)

    def number(self):
        start = self.at
        while self.peek() not in BLANKS and self.peek() != -1:
            self.at += 1
        text = self.text[start : self.at].decode("latin-1")
        if not text.isascii() or any(letter in text for letter in "_xXpP"):
            raise NotUnderstood
        if text[:1] in {"+", "-"} and text[1:].lower() == "nan":
            raise NotUnderstood
        if text != text.strip() or not text:
            raise NotUnderstood
        try:
            float(text)
        except ValueError:
            raise NotUnderstood from None

    def pair(self):
        name = self.string() if self.peek() == ord('"') else self.word(LETTERS, LETTERS | DIGITS)
        self.blanks()
        self.take("=")
        self.blanks()
        start = self.at
        value = self.string()
        return name, value, start, self.at

    def pair_list(self):
        """Pairs up to a closing brace, which is taken too."""
        pairs = []
        self.blanks()
        while self.peek() != ord("}"):
            pairs.append(self.pair())
            self.blanks()
            if self.peek() != ord("}"):
                self.take(",")
                self.blanks()
        self.take("}")
        return pairs

    def read(self):
        self.blanks()
        colon = frozenset(b":")
        if self.peek() == ord("{"):
            self.take("{")
            self.blanks()
            self.string()
            self.blanks()
            if self.peek() != ord("}"):
                self.take(",")
            self.pairs = self.pair_list()
        else:
            self.word(LETTERS | colon, LETTERS | DIGITS | colon)
            blank = self.blanks()
            if self.peek() == ord("{"):
                self.take("{")
                self.pairs = self.pair_list()
            elif not blank:
                raise NotUnderstood
        self.blanks()
        self.number()
        self.rest()

    def rest(self):
        """A timestamp, exemplars, blanks."""
        timestamp = False
        while self.at < len(self.text):
            if not self.blanks():
                raise NotUnderstood
            if self.peek() == ord("#"):
                self.exemplar()
                timestamp = True
            elif self.peek() != -1:
                if timestamp:
                    raise NotUnderstood
                self.number()
                timestamp = True

    def exemplar(self):
        self.take("#")
        self.blanks()
        self.take("{")
        self.pair_list()
        self.blanks()
        self.number()
        before = self.at
        if self.blanks() and self.peek() not in {-1, ord("#")}:
            self.number()
        elif self.at > before:
            self.at = before


class Result:
    """The output and the counts."""

    def __init__(self):
        self.output = b""
        self.samples = self.enriched = self.unparsed = self.conflicts = 0


def enrich(text, labels, *, overwrite=False, max_line=1 << 20):
    """Enrich a whole exposition; `labels` maps a namespace to its (name, quoted value) pairs."""
    result = Result()
    lines = text.split(b"\n")
    result.output = b"\n".join(
        _enrich_line(line, labels, overwrite, max_line, result) for line in lines
    )
    return result


def _enrich_line(text, labels, overwrite, max_line, result):
    stripped = text[:max_line].lstrip(b" \t")
    if len(text) > max_line:
        result.unparsed += not stripped.startswith(b"#")
        return text
    if not stripped or stripped.startswith(b"#"):
        return text
    try:
        line = Line(text)
    except NotUnderstood:
        result.unparsed += 1
        return text
    spaces = [pair for pair in line.pairs if pair[0] == b"namespace"]
    if len(spaces) > 1:
        result.unparsed += 1
        return text
    result.samples += 1
    if not spaces or not spaces[0][1]:
        return text
    _, namespace, _, insert_at = spaces[0]
    borne = {pair[0] for pair in line.pairs}
    edits = []
    added = b""
    for name, value in labels.get(namespace, ()):
        if name not in borne:
            added += b"," + name + b"=" + value
            continue
        result.conflicts += 1
        if overwrite:
            edits += [(start, end, value) for n, _, start, end in line.pairs if n == name]
    edits.append((insert_at, insert_at, added))
    result.enriched += bool(added) or len(edits) > 1
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
