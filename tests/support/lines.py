"""Random expositions, good, odd and broken, and the two readings of them, side by side.

Everything is drawn from the given `random.Random`: one seed, one text.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from kmproxy.exposition.engine import available
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.pipeline import Pipeline, Recipe
from tests.support import reference
from tests.support.engines import counts

# Namespace -> name and quoted value of each label; some names are those samples bear anyway.
LABELS = {
    b"payments": [(b"team", b'"payments"')],
    b"web": [(b"team", b'"front"'), (b"tier", b'"a\\"b"')],
    b"shop": [(b"tier", b'"gold"'), (b"cost_center", b'"4711"'), (b"team", b'"shop"')],
    b"taken": [(b"pod", b'"label"'), (b"le", b'"label"')],
    b'o"dd': [(b"team", b'"o\\\\dd"')],
    b"two\nlines": [(b"owner", b'"x\\ny"')],
    b"back\\slash": [(b"team", b'"slash"')],
    "\u00fcber".encode(): [(b"team", '"\u00fc"'.encode())],
    b"\xff": [(b"team", b'"ff"')],
    b"bare": [],
}

METRICS = [b"m", b"up", b"a:b", b"container_cpu_usage_seconds_total", b"x_bucket", b"_9"]
NAMES = [b"a", b"le", b"pod", b"id", b"image", b"exported_namespace", b"namespace_", b"Namespace"]
ADDED = [b"team", b"tier", b"owner", b"cost_center", b"pod", b"le"]
SPACES = [b"payments", b"web", b"shop", b"taken", b"bare", b"", b"nobody"]
ODD_SPACES = [
    b'o\\"dd', b"two\\nlines", b"back\\\\slash", b"back\\slash", b"\xc3\xbcber", b"\xff", b"pay\\ments",
    b"payments ", b"\\n", b"web,", b"web\x00", b"web\r",
]  # fmt: skip
VALUES = [
    b"",
    b"x",
    b"p-1",
    b"/kubepods/burstable",
    b"0.5",
    b"+Inf",
    b"a,b",
    b"a=b",
    b"}",
    b"{",
    b"# {",
]
ODD_VALUES = [
    b"\\\\", b'\\"', b"\\n", b"\\x", b'",namespace=\\"web\\"', b"namespace=", b',namespace="web', b"\\",
    b'namespace=\\"web\\"', b"\xff\xfe", b"\xe2\x82", b"\x00", b"\r", b"x\ny", b"\n", b'"', b'",', b'"} 1\nm{a="',
    b'"} 1 # {b="',
]  # fmt: skip
NUMBERS = [b"1", b"0", b"1.5e+07", b"+Inf", b"-Inf", b"NaN", b"-.5", b"1.", b"12E-3", b"infinity"]
ODD_NUMBERS = [
    b"x",
    b"",
    b"0x1",
    b"1e",
    b"1_0",
    b"+NaN",
    b".",
    b"--1",
    b"1 1 1",
    b"1,5",
    b"\x001",
    b"1{}",
]
BLANKS = [b"", b"", b"", b" ", b" ", b"\t", b" \t "]
OPENINGS = [b"", b"", b"", b"", b"", b",", b'"my metric",']
COMMAS = [b",", b",", b",", b",", b" , ", b" ", b"", b",,"]
QUOTED = [b'"my.metric"', b'"x" ', b'"m\\""', b'"team"', b'"namespace"', b'"a=",', b'""']
CLOSINGS = [b"}", b"}", b"}", b"}", b",}", b" , }", b",,}", b"", b"}}", b";}"]
EXEMPLARS = [
    b' # {trace_id="abc"} 1', b' # {trace_id="abc"} 0.5 1.25', b' # {namespace="web"} 1', b" # {} 1",
    b' # {a="\\"",} 1 # {b="}"} 2', b'\t#{a="b"}1', b' # {a="b"}', b" # 5", b" #", b"# {} 1",
    b' # {namespace="web",team="x"} 2 ',
]  # fmt: skip
COMMENTS = [
    b"# HELP m Some text.", b"# TYPE m counter", b"# EOF", b"#EOF", b"#", b" # x", b"\t#", b"# UNIT m seconds",
    b'# m{namespace="web"} 1', b'#m{namespace="web"} 1', b'# {namespace="web",team="x"} 1', b"# \xff\x00\r",
    b'# HELP m Say "namespace="', b"# HELP m a\\nb \\",
]  # fmt: skip
OTHERS = [
    b"", b"", b" ", b"\t ", b"\r", b"<html>", b"m", b"m ", b"m{", b'{"m"} 1', b'{"m", namespace="web"} 1',
    b'{"namespace"="web"} 1', b'{namespace="web"} 1', b'{"namespace"} 1', b'{"a\\"b",namespace="shop"}2',
    b'm{"namespace"="web"} 1', b'm{"name\\space"="web"} 1', b'm{"\\namespace"="web"} 1', b"\xef\xbb\xbfm 1",
    b'm{namespace="web",namespace="web"} 1', b'm{namespace="","namespace"="web"} 1', b'm{namespace="web"',
    b'm{namespace="web', b'",namespace="web"} 1', b'm{namespace="web"} 1\r', b"\x00", b'm{a="1" namespace="web"} 1',
    b'{namespace="web","m"} 1', b'{namespace="shop" "m"}1', b'{team="x""m",namespace="web"} 1', b'{"m",namespace="web","n"} 1',
    b'm{namespace="web","n"} 1', b'm{"n"} 1', b'{"namespace",namespace="web"} 1', b'{namespace="web","namespace"} 1',
    b'{"team",namespace="web"} 1', b'{namespace="web","team"} 1', b'{namespace="web","m",namespace="web"} 1', b"{} 1", b"m{} 1",
    b'{"team=",namespace="web",b="team=\\"} 1', b'{namespace="web","team=" , tier="1"tier="2"} 1', b'{"m"namespace="web"} 1',
    b'm{namespace="web"team="x"le="1"} 1', b'{,"m"} 1', b'{"m",,a="1"} 1', b'{namespace="web","m",} 1 1', b'{namespace="web",,"m"} 1',
    b'{a="1","m"} 1', b'{namespace="web" "m"} 1 # {a="b" c="d"} 1', b'{"namespace"="web","m"} 1 # {a="b","n"} 1',
]  # fmt: skip
LIMITS = (MAX_LINE, MAX_LINE, MAX_LINE, 150, 90, 40)


def _cadvisor(rng, _):
    """A line as cAdvisor writes it: the fastest shape."""
    pod = rng.randrange(1000)
    return b'%b{container="%b",id="/pod%d",namespace="%b",pod="%b-%d"} %d %d' % (
        rng.choice(METRICS), rng.choice(VALUES[:4]), pod, rng.choice(SPACES), rng.choice(VALUES[:3]), pod,
        rng.randrange(10**6), rng.randrange(10**12),
    )  # fmt: skip


def _short(rng, _):
    return b'm%d{namespace="%b"} %b' % (rng.randrange(99), rng.choice(SPACES), rng.choice(NUMBERS))


def _without(rng, _):
    """A line without a namespace. A run of these passes as a whole."""
    labels = [
        b'%b="%b"' % pair
        for pair in zip(rng.choices(NAMES, k=3), rng.choices(VALUES, k=3), strict=True)
    ]
    metric, pairs = rng.choice(METRICS), b",".join(labels[: rng.randrange(4)])
    if not pairs and rng.random() < 0.5:
        return b"%b %d" % (metric, rng.randrange(1000))
    return b"%b{%b} %d" % (metric, pairs, rng.randrange(10**6))


def _pair(rng):
    """A name and a value: perhaps a namespace, a conflict, quoted, spaced or broken."""
    name = rng.choice(rng.choice([NAMES, ADDED, [b"namespace"], [b"namespace"]]))
    chance = rng.random()
    if chance < 0.1:
        name = b'"%b"' % name
    elif chance < 0.15:
        name = rng.choice([b"", b"a-b", b'"a b"', b'"a\\"b"', b"1a", b"__x", b'"\\\\"', b'"\xff"'])
    odd = rng.random() < 0.15
    if b"namespace" in name:
        value = rng.choice(ODD_SPACES if odd else SPACES)
    else:
        value = rng.choice(ODD_VALUES if odd else VALUES)
    if rng.random() < 0.6:
        return b'%b="%b"' % (name, value)
    a, b, c, d = rng.choices(BLANKS, k=4)
    return b'%b%b%b=%b"%b"%b' % (a, name, b, c, value, d)


def _sample(rng, _):
    """Any mixture of pairs, mostly valid."""
    comma = rng.choice(COMMAS)
    pairs = [_pair(rng) for _ in range(rng.randrange(5))]
    a, b, c, d = rng.choices(BLANKS, k=4)
    metric = rng.choice(METRICS)
    if rng.random() < 0.15:
        metric = b""
        pairs.insert(rng.randrange(len(pairs) + 1), rng.choice(QUOTED))
    labels = rng.choice(OPENINGS) + comma.join(pairs) + rng.choice(CLOSINGS)
    value = rng.choice(ODD_NUMBERS if rng.random() < 0.05 else NUMBERS)
    stamp = rng.choice([b"", b"", b" 1795208082328", b"\t-1.5", b" 1 "])
    exemplar = rng.choice(EXEMPLARS) if rng.random() < 0.2 else b""
    return b"%b%b%b{%b%b%b%b%b" % (a, metric, b, labels, c or d, value, stamp, exemplar)


def _conflict(rng, _):
    """A plain line with labels that the namespace also has."""
    pairs = [b'namespace="%b"' % rng.choice(SPACES[:4])]
    for name in rng.choices(ADDED, k=rng.randrange(1, 4)):
        pairs.insert(rng.randrange(len(pairs) + 1), b'%b="%b"' % (name, rng.choice(VALUES[:4])))
    return b"m{%b} %d" % (b",".join(pairs), rng.randrange(1000))


def _comment(rng, _):
    return rng.choice(COMMENTS)


def _other(rng, _):
    return rng.choice(OTHERS)


def _long(rng, limit):
    """A line at the limit, one byte under or over it, or far over it."""
    fill = max(0, min(limit, 200) + rng.choice([-1, 0, 1, 2, 60]))
    head, pad, end = rng.choice([
        (b'm{namespace="web",a="', b"x", b'"} 1'),
        (b'm{a="', b"\\n", b'",namespace="web"} 1'),
        (b"# ", b"x", b""),
        (b"", b" ", b"# x"),
        (b"m ", b"1", b""),
        (b"", b"x", b""),
    ])  # fmt: skip
    body = pad * fill
    return head + body[: max(0, fill - len(head) - len(end))] + end


KINDS = (_cadvisor, _short, _without, _sample, _conflict, _comment, _other, _long)
PROFILES = (
    (30, 10, 8, 1, 1, 1, 1, 0),  # a kubelet's answer with something odd in it
    (10, 20, 5, 5, 10, 3, 2, 1),
    (1, 1, 10, 2, 1, 8, 1, 1),  # hardly a namespace
    (2, 2, 2, 20, 4, 2, 4, 1),  # hardly a plain line
    (5, 2, 2, 4, 1, 1, 1, 6),
)


def _mutate(rng, line, other):
    """Flips, drops, doubles, inserts or moves some bytes, or joins another line."""
    at = rng.randrange(len(line) + 1)
    match rng.randrange(7):
        case 0:
            return line[:at] + line[at + 1 :]
        case 1:
            return line[:at] + rng.choice(b'{}="\\,# \t\n\rn0').to_bytes() + line[at:]
        case 2:
            return line[:at] + line[at : at + 9] + line[at:]
        case 3:
            return line[:at] + rng.randrange(256).to_bytes() + line[at + 1 :]
        case 4:
            return line[:at] + other[rng.randrange(len(other) + 1) :]
        case 5:
            return line[:at]
    return line.replace(rng.choice([b'"', b",", b" ", b"=", b"}"]), b"", 1)


def random_text(rng, count, limit=MAX_LINE):
    """About `count` lines. Half of the texts have no backslash, like most expositions."""
    kinds = rng.choices(KINDS, rng.choice(PROFILES), k=count)
    lines = [kind(rng, limit) for kind in kinds]
    broken = rng.choice((0.0, 0.02, 0.3))
    for at in range(int(broken * count) + (broken > 0 and rng.random() < 0.5)):
        where = (at * 7 + rng.randrange(count)) % count
        lines[where] = _mutate(rng, lines[where], rng.choice(lines))
    ends = [b"\n"] * count
    if rng.random() < 0.2:
        ends[rng.randrange(count)] = rng.choice([b"\r\n", b" \n", b"\n\n", b"", b"\\\n"])
    if rng.random() < 0.3:
        ends[-1] = b""
    text = b"".join([line + end for line, end in zip(lines, ends, strict=True)])
    return text.replace(b"\\", b"") if rng.random() < 0.5 else text


def random_cuts(rng, text, limit=MAX_LINE):
    """Cuts: none, evenly, anywhere, around line ends, or around the line limit."""
    size = len(text)
    match rng.randrange(6):
        case 0:
            return []
        case 1:
            return list(range(0, size, rng.choice([1, 2, 7, 64, limit, limit + 1])))
        case 2:
            return sorted(rng.randrange(size + 1) for _ in range(rng.randrange(1, 9)))
        case 3:
            return list(range(0, size, rng.randrange(30, 1000)))
    cuts, at = set(), 0
    while (at := text.find(b"\n", at + 1)) >= 0:
        if rng.random() < 0.5:
            cuts.add(at + rng.choice([0, 0, 1, 1, 2, -1, limit, limit + 1]))
    return sorted(cut for cut in cuts if 0 <= cut <= size)


class Reading(NamedTuple):
    """The result of reading an exposition."""

    output: bytes
    samples: int
    enriched: int
    unparsed: int
    conflicts: int


def fed(text, cuts=(), *, labels=None, overwrite=False, limit=MAX_LINE, names=(), engine="pure"):
    """The output of a pipeline that was fed with the pieces, and the pipeline."""
    labels = LABELS if labels is None else labels
    pipeline = Pipeline(
        lambda space: b"".join([b",%b=%b" % pair for pair in labels.get(space, ())]),
        Recipe(
            names=frozenset(names),
            on_conflict="overwrite" if overwrite else "keep",
            max_line=limit,
        ),
        engine=engine,
    )
    bounds = [0, *cuts, len(text)]
    output = [pipeline.feed(text[a:b]) for a, b in pairwise(bounds)]
    output.append(pipeline.finish())
    return b"".join(output), pipeline


def by_engine(text, cuts=(), **options):
    """The engine's reading. Of a text that is refused it says why."""
    try:
        output, pipeline = fed(text, cuts, **options)
    except RepeatedLabelError as error:
        return refused(error.label, error.metric)
    return Reading(output, *counts(pipeline))


def refused(label, metric):
    """The reading of a text that is refused for a metric that repeats a label."""
    return Reading(b"refused: %b of %b" % (label, metric), 0, 0, 0, 0)


def by_reference(text, *, labels=None, overwrite=False, limit=MAX_LINE):
    """The reference reader's result for the whole text."""
    labels = LABELS if labels is None else labels
    try:
        result = reference.enrich(text, labels, overwrite=overwrite, max_line=limit)
    except reference.RepeatedLabel as error:
        return refused(*error.args)
    counts = result.samples, result.enriched, result.unparsed, result.conflicts
    return Reading(result.output, *counts)


def fuzz_case(data):
    """A fuzz case from random bytes: text, cuts, options of both readings, announced names.

    The first line is the header: a byte for `overwrite` (1), the line limit (2 and 4) and
    announced names (8), then the lengths of the pieces, repeated. The rest is the text.
    """
    header, _, text = data.partition(b"\n")
    flags = header[0] if header else 0
    lengths, cuts, at, turn = header[1:], [], 0, 0
    while any(lengths) and (at := at + lengths[turn % len(lengths)]) < len(text):
        cuts.append(at)
        turn += 1
    options = {"overwrite": bool(flags & 1), "limit": (MAX_LINE, 30, 60, 120)[flags >> 1 & 3]}
    return text, cuts, options, ADDED[1:] if flags & 8 else ()


def check_fuzz_case(data):
    """All readings of a fuzz case agree, and without labels nothing changes."""
    text, cuts, options, names = fuzz_case(data)
    expected = by_reference(text, **options)
    for engine in available():
        for got in (
            by_engine(text, cuts, names=names, engine=engine, **options),
            by_engine(text, engine=engine, **options),
        ):
            assert got == expected, f"{engine}: {got}\nis not the reference's\n{expected}"
        assert by_engine(text, cuts, labels={}, engine=engine, **options).output == text
