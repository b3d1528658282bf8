"""Lines at random as the parsers of the Prometheus server read them, beside the engine's reading.

The server is the judge of which lines are samples. Where the readings differ, the difference is
one of those that `why_only_we` and `why_only_the_server` name.
"""

from __future__ import annotations

import os
import random
import re
from typing import NamedTuple

import pytest

from kmproxy.exposition.grammar import Sample, unquote
from tests.support import lines, server_parser
from tests.support.mutations import mutate, random_line

# Coverage would make the same lines slow, many times.
pytestmark = [pytest.mark.e2e, pytest.mark.no_cover, pytest.mark.program("textparse")]

LINES = 120_000 if os.environ.get("CI") else 30_000

ELEMENTS = [
    b'"my.metric"', b'"namespace"', b'"q\\"q"', b'namespace="web"', b'namespace="shop"', b'"namespace"="web"',
    b'"name\\space"="web"', b'a="1"', b'b="}"', b'"c.d"="x,"', b'team="own"', b'g="# {"', b'f = "\\\\"', b"h",
]  # fmt: skip
NUMBERS = [b"1", b"1e999", b"-1e400", b"1e-999", b"9" * 30, b"0x1p4", b"0x1", b"1_0", b"+nan", b"InFiNiTy"]  # fmt: skip


def in_braces(rng):
    """Pairs and names in any order, with any separators, and numbers at their limits."""
    metric = rng.choice([b"", b"", b"m", b"m ", b" "])
    parts = [
        element + rng.choice([b",", b",", b",", b" , ", b" ", b"", b",,"])
        for element in rng.sample(ELEMENTS, rng.randrange(1, 5))
    ]
    stamp = rng.choice([b"", b"", b"", b" 17", b" 1.5", b" " + rng.choice(NUMBERS)])
    return b"%b{%b} %b%b" % (metric, b"".join(parts), rng.choice(NUMBERS), stamp)


def random_lines(rng, count):
    """Lines of all generators, each once."""
    found = {}
    while len(found) < count:
        text = lines.random_text(rng, 60).split(b"\n")
        text += b"".join([mutate(random_line(rng), rng) for _ in range(20)]).split(b"\n")
        text += [mutate(in_braces(rng), rng) for _ in range(10)]
        found |= dict.fromkeys(line for each in text for line in each.split(b"\n"))
    return list(found)


class Case(NamedTuple):
    """A line, our reading of it, and the server's, in the first format that takes it."""

    line: bytes
    sample: Sample | None
    server: server_parser.Reading | None
    reasons: tuple[str, str]


@pytest.fixture(scope="module")
def cases():
    """The lines, each read by both."""
    rng = random.Random(11)
    given = random_lines(rng, LINES)
    found = []
    for line, readings in zip(given, server_parser.read(given), strict=True):
        taken = [reading for reading in readings if not reading.reason]
        reasons = (readings[0].reason, readings[1].reason)
        found.append(Case(line, Sample.parse(line), taken[0] if taken else None, reasons))
    return found


_REASONS = ("label twice", "invalid UTF-8", "invalid name", "value out of range")
_STAMP = re.compile(rb"[ \t]++(?![0-9]{1,18}$)[^ \t]++")  # not as the text format has it
_GLUED = re.compile(rb"[ \t]*+[a-zA-Z_:][a-zA-Z0-9_:]*(?:[-+.]|(?<=[eE0-9])[-+])")


def why_only_we(case):
    """Why a line is understood that the server refuses in both formats; None is a fault of ours.

    Each reason fails a scrape as a whole, so no wrong sample can come of it.
    """
    for reason in _REASONS:
        if reason in case.reasons[0] or reason in case.reasons[1]:
            return reason
    if b"\x00" in case.line:
        return "a NUL in a quoted name"
    stamp = case.line[slice(*case.sample.stamp)] if case.sample.stamp else None
    if stamp is not None and _STAMP.fullmatch(stamp):
        return "a timestamp of OpenMetrics, blanks of the text format"
    if b"#" in case.line[case.sample.pairs_end :]:
        return "an exemplar of OpenMetrics, blanks of the text format"
    return None


def why_only_the_server(case):
    """Why a line is not understood that the server takes; None is a fault of ours.

    Such a line passes unchanged and is counted as unparsed. A tenant never gets it.
    """
    if _GLUED.match(case.line):
        return "a number right behind a name"
    return None


def test_a_line_is_understood_if_the_server_takes_it(cases):
    """The differences are the known ones, and each of these is among the lines."""
    ours, servers, both = {}, {}, 0
    for case in cases:
        if case.sample is not None and case.server is None:
            ours.setdefault(why_only_we(case), []).append((case.line, case.reasons))
        elif case.sample is None and case.server is not None:
            servers.setdefault(why_only_the_server(case), []).append(case.line)
        else:
            both += case.sample is not None
    assert ours.pop(None, []) == []
    assert servers.pop(None, []) == []
    assert len(ours) == len(_REASONS) + 3, ours.keys()
    assert len(servers) == 1
    assert both > LINES // 4


def test_the_parts_of_a_line_are_the_servers(cases):
    """Name, labels and timestamp of each line that both understand are the same."""
    for case in cases:
        if case.sample is None or case.server is None:
            continue
        ours = [(name, unquote(pair["value"])) for name, pair in case.sample.labels()]
        ours.append((b"__name__", case.sample.name))
        assert [(_blank(case, *pair)) for pair in case.server.pairs] == sorted(
            (name.decode(), value.decode()) for name, value in ours
        ), case.line
        assert (case.sample.stamp is None) == (case.server.ms is None), case.line


def _blank(case, name, value):
    """The server's text format takes blanks before a metric's name as a part of it."""
    if name == "__name__" and case.line[:1] in {b" ", b"\t"} and case.sample.named is None:
        value = value.lstrip(" \t")
    return name, value


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_server_reads_the_labels_added(engine, cases, overwrite):
    """What the engine writes has, for the server, exactly the labels of the namespace besides."""
    known = [case for case in cases if case.sample is not None and case.server is not None]
    known = known[overwrite::2]
    text = b"\n".join([case.line for case in known])
    output, counts = lines.by_engine(text, overwrite=overwrite, engine=engine), 0
    assert (output.samples, output.unparsed) == (len(known), 0)
    read = server_parser.read(output.output.split(b"\n"))
    for case, readings in zip(known, read, strict=True):
        before = dict(case.server.pairs)
        space = before.get("namespace", "").encode()
        added = {
            name.decode(): unquote(value).decode() for name, value in lines.LABELS.get(space, ())
        }
        expected = before | added if overwrite else added | before
        taken = [reading for reading in readings if not reading.reason]
        assert taken, (case.line, readings)
        assert (dict(taken[0].pairs), taken[0].ms) == (expected, case.server.ms), case.line
        counts += expected != before
    assert counts > LINES // 20


def test_lines_that_the_server_refuses_are_no_samples(engine, cases):
    """The engine counts none of them as a sample, and changes none."""
    refused = [case.line for case in cases if case.server is None and case.sample is None]
    text = b"\n".join(refused)
    reading = lines.by_engine(text, engine=engine)
    assert (reading.output, reading.samples) == (text, 0)
    assert reading.unparsed > LINES // 20
