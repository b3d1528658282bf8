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


class RepeatedLabel(Exception):  # noqa: N818 - it is an outcome here, too
    """A sample repeats labels that are overwritten too often: the name at which, and its metric."""


class Line:
    """A sample line, read from left to right; positions are kept, bytes never changed."""

    def __init__(self, text):
        self.text = text
        self.at = 0
        self.name = b""  # of the metric, unquoted
        self.named = None  # where its name begins and ends, if it stands in the braces
        self.pairs = []  # name, value, start of the quoted value, end of the pair
        self.begins = []  # where each of the pairs begins
        self.pairs_end = 0  # behind the last of them, and behind the comma that may follow it
        self.stamp = None  # where the timestamp begins, with the blanks before it, and ends
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

    def exemplar_pairs(self):
        """Pairs up to a closing brace, which is taken too; a comma between two of them."""
        self.blanks()
        while self.peek() != ord("}"):
            self.pair()
            self.blanks()
            if self.peek() != ord("}"):
                self.take(",")
                self.blanks()
        self.take("}")

    def braces(self, named):
        """Pairs, and the metric's name if that is still to come, up to a closing brace.

        As Prometheus' text parser goes on: a string that a comma or the brace
        follows is the name. A comma may follow a pair.
        """
        self.take("{")
        self.pairs_end = self.at
        self.blanks()
        while self.peek() != ord("}"):
            start = self.at
            try:
                self.pairs.append(self.pair())
            except NotUnderstood:
                self.at = start
                self.name = self.string()
                if named:
                    raise
                named, self.named = True, (start, self.at)
                self.blanks()
                if self.peek() != ord("}"):
                    self.take(",")
                    self.blanks()
                continue
            self.begins.append(start)
            self.pairs_end = self.at
            self.blanks()
            if self.peek() == ord(","):
                self.take(",")
                self.pairs_end = self.at
                self.blanks()
        self.take("}")
        if not named:
            raise NotUnderstood

    def read(self):
        self.blanks()
        colon = frozenset(b":")
        if self.peek() == ord("{"):
            self.braces(named=False)
        else:
            self.name = self.word(LETTERS | colon, LETTERS | DIGITS | colon)
            blank = self.blanks()
            if self.peek() == ord("{"):
                self.braces(named=True)
            elif not blank:
                raise NotUnderstood
        self.blanks()
        self.number()
        self.rest()

    def rest(self):
        """A timestamp, exemplars, blanks."""
        timestamp = False
        while self.at < len(self.text):
            start = self.at
            if not self.blanks():
                raise NotUnderstood
            if self.peek() == ord("#"):
                self.exemplar()
                timestamp = True
            elif self.peek() != -1:
                if timestamp:
                    raise NotUnderstood
                self.number()
                self.stamp = start, self.at
                timestamp = True

    def exemplar(self):
        self.take("#")
        self.blanks()
        self.take("{")
        self.exemplar_pairs()
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
        self.samples = self.enriched = self.unparsed = self.conflicts = self.unknown_pods = 0


class Spaces:
    """The labels that name namespaces: the first one borne; with prefixes, each of them."""

    def __init__(self, names=(b"namespace",), prefixes=()):
        self.names = names
        self.prefixes = prefixes

    def named(self, line):
        """The pairs of a sample that name its namespaces, each with its prefix.

        Raises NotUnderstood where one of the labels stands twice.
        """
        found = []
        for at, name in enumerate(self.names):
            pairs = [pair for pair in line.pairs if pair[0] == name]
            if len(pairs) > 1:
                raise NotUnderstood
            prefix = self.prefixes[at] if self.prefixes else b""
            found += [(pair, prefix) for pair in pairs if pair[1]]
        return found if self.prefixes else found[:1]


NAMESPACE = Spaces()
POD = Spaces((b"pod",))


def enrich(text, labels, *, overwrite=False, max_line=1 << 20, spaces=NAMESPACE, pods=None):
    """Enrich a whole exposition; `labels` maps a namespace to its (name, quoted value) pairs.

    `pods` maps (namespace, pod) to such pairs too; a sample of another pod is left out.
    """
    result = Result()
    passed = []
    for line in _lines(text):
        body = line.removesuffix(b"\n")
        new = _enrich_line(body, labels, overwrite, max_line, result, spaces, pods)
        passed += [] if new is None else [new, line[len(body) :]]
    result.output = b"".join(passed)
    return result


def _enrich_line(text, labels, overwrite, max_line, result, spaces, pods):
    stripped = text[:max_line].lstrip(b" \t")
    if len(text) > max_line:
        result.unparsed += not stripped.startswith(b"#")
        return text
    if not stripped or stripped.startswith(b"#"):
        return text
    try:
        line = Line(text)
        naming = spaces.named(line)
        pod = POD.named(line) if pods is not None else []
    except NotUnderstood:
        result.unparsed += 1
        return text
    try:
        wanted = _labels_to_add(naming, pod, labels, pods)
    except KeyError:  # of a pod
        result.unknown_pods += 1
        return None
    result.samples += 1
    edits = []
    if overwrite:
        _refuse_repeats(line, wanted)
    for name, (value, at) in wanted.items():
        borne = [pair for pair in line.pairs if pair[0] == name]
        result.conflicts += bool(borne)
        if not borne:
            edits.append((at, at, b"," + name + b"=" + value))
        elif overwrite:
            edits += [(start, end, value) for _, _, start, end in borne]
    result.enriched += bool(edits)
    edits.reverse()
    for start, end, new in sorted(edits, key=lambda edit: edit[0], reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _refuse_repeats(line, wanted):
    names = [pair[0] for pair in line.pairs]
    repeats = [name for at, name in enumerate(names) if name in wanted and name in names[:at]]
    if len(repeats) > 8:
        raise RepeatedLabel(repeats[8], line.name)


def _labels_to_add(naming, pod, labels, pods):
    """Each label to add: its quoted value, and its place. KeyError for a pod that is not known."""
    wanted = {}
    if naming and pod:
        (_, space, _, _), _ = naming[0]
        (_, name, _, end), _ = pod[0]
        wanted |= {label: (value, end) for label, value in pods[space, name]}
    for (_, space, _, end), prefix in naming:
        for label, value in labels.get(space, ()):
            wanted.setdefault(prefix + label, (value, end))
    return wanted


class Selector:
    """A selection made line by line: what passes, with labels and timestamps taken off."""

    def __init__(
        self, *, wants_metric, wants_namespace, drop_labels=(), strip=False, spaces=NAMESPACE
    ):
        self.wants_metric = wants_metric
        self.wants_namespace = wants_namespace
        self.spaces = spaces
        self.drop_labels = drop_labels
        self.strip = strip
        self.series = {}
        self.dropped = {"metric": 0, "namespace": 0, "merged": 0}


def select(text, selector):
    """The lines of a whole exposition that pass. A dropped line goes with its newline."""
    passed = []
    for line in _lines(text):
        body = line.removesuffix(b"\n")
        if (kept := _select_line(body, selector)) is not None:
            passed.append(kept + line[len(body) :])
    return b"".join(passed)


def _lines(text):
    """The lines, each with its newline; no other byte ends one."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1].removesuffix(b"\n")
    return lines if lines[-1] else lines[:-1]


def _select_line(text, selector):
    try:
        line = Line(text)
    except NotUnderstood:
        return text
    if not selector.wants_metric(line.name):
        selector.dropped["metric"] += 1
        return None
    try:
        named = selector.spaces.named(line)
    except NotUnderstood:
        return text
    if not all(map(selector.wants_namespace, [pair[1] for pair, _ in named] or [b""])):
        selector.dropped["namespace"] += 1
        return None
    if selector.drop_labels:
        whole = _series(line, ())
        if selector.series.setdefault(_series(line, selector.drop_labels), whole) != whole:
            selector.dropped["merged"] += 1
            return None
    if selector.strip and line.stamp:
        start, end = line.stamp
        text = text[:start] + text[end:]
    while True:
        line = Line(text)
        names = [pair[0] for pair in line.pairs]
        if not (there := [at for at, name in enumerate(names) if name in selector.drop_labels]):
            return text
        text = _without_pair(line, there[0])


def _series(line, dropped):
    pairs = sorted((name, value) for name, value, _, _ in line.pairs if value)
    return line.name, tuple(pair for pair in pairs if pair[0] not in dropped)


def _without_pair(line, at):
    """The line without one pair, and without the comma that then separates nothing."""
    stand = [(begin, pair[3]) for begin, pair in zip(line.begins, line.pairs, strict=True)]
    pair = stand[at]
    if line.named:
        stand = sorted([*stand, line.named])
    at, last = stand.index(pair), len(stand) - 1
    start, end = pair[0], line.pairs_end
    if at < last:
        end = stand[at + 1][0]
    elif at:
        start, end = stand[at - 1][1], pair[1]
    return line.text[:start] + line.text[end:]


def seen(text, spaces=NAMESPACE, *, pods=False):
    """The namespaces of the samples of a whole exposition; with pods, none has two pods."""
    found = set()
    for body in text.split(b"\n"):
        try:
            line = Line(body)
            if pods:
                POD.named(line)
            found.update(pair[1] for pair, _ in spaces.named(line))
        except NotUnderstood:
            continue
    return {space for space in found if len(space) <= 63}  # a longer one is no namespace


def has_info(text):
    """Whether an exposition has a line of the info metric's family."""
    for body in text.split(b"\n"):
        words = body.split()
        if words[:1] == [b"#"] and words[1:2] in ([b"HELP"], [b"TYPE"], [b"UNIT"]):
            if words[2:3] in ([b"kube_namespace_labels"], [b'"kube_namespace_labels"']):
                return True
            continue
        try:
            if Line(body).name == b"kube_namespace_labels":
                return True
        except NotUnderstood:
            continue
    return False


def with_info(text, labels, spaces=NAMESPACE, *, pods=False):
    """An exposition with the info metric of its namespaces, before the mark of its end."""
    if has_info(text):
        return text
    rows = []
    for space in sorted(seen(text, spaces, pods=pods)):
        value = bytearray()
        for byte in space:
            value += {10: b"\\n", 34: b'\\"', 92: b"\\\\"}.get(byte, bytes([byte]))
        pairs = b"".join(b",label_" + name + b"=" + label for name, label in labels.get(space, ()))
        rows.append(
            b'kube_namespace_labels{namespace="'
            + value
            + b'"'
            + pairs
            + b',instance="",node="",pod=""} 1\n'
        )
    body, mark = text, b""
    for end in (b"# EOF\n", b"# EOF"):
        if not mark and (text == end or text.endswith(b"\n" + end)):
            body, mark = text.removesuffix(end), end
    return b"".join([
        body,
        b"\n" if body and not body.endswith(b"\n") else b"",
        b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.\n",
        b"# TYPE kube_namespace_labels gauge\n",
        *rows,
        mark,
    ])  # fmt: skip
