"""The tenant filter passes complete lines of allowed namespaces, and no other samples."""

from __future__ import annotations

import os
import random
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmproxy.auth.tenant_filter import Recent, TenantFilter
from kmproxy.exposition.lines import MAX_LINE
from tests.support import lines
from tests.support.reference import Line, NotUnderstood
from tests.support.strategies import anything, cut, limits
from tests.support.tenant_text import EXPOSITION, SEEN

examples = settings(
    max_examples=200, deadline=None, database=None, derandomize=bool(os.environ.get("CI"))
)
MINE = {"payments", "web"}


def narrowed(text, cuts=(), *, mine=MINE, wanted=lambda _: True, limit=MAX_LINE):
    """The passed bytes of the pieces between the cuts, the names asked for, and the drops."""
    tenant_stream = TenantFilter(wanted, max_line=limit)
    asked, output = [], []
    bounds = [0, *cuts, len(text)]
    pieces = [lambda a=a, b=b: tenant_stream.feed(text[a:b]) for a, b in pairwise(bounds)]
    for step in (*pieces, tenant_stream.finish):
        namespaces = step()
        asked += sorted(namespaces)
        tenant_stream.decide({namespace: namespace in mine for namespace in namespaces})
        output.append(tenant_stream.take())
    return b"".join(output), asked, tenant_stream.dropped


def samples(text, *, limit=MAX_LINE, mine=None):
    """The lines of a text that are neither blank nor comments.

    With `mine`, only those that should pass, found by reading byte by byte.
    """
    found = [line for line in text.split(b"\n") if line.strip(b" \t")[:1] not in {b"", b"#"}]
    if mine is None:
        return found
    return [line for line in found if len(line) <= limit and _is_of(line, mine)]


def _is_of(line, mine):
    try:
        pairs = Line(line).pairs
    except NotUnderstood:
        return False
    spaces = [pair[1] for pair in pairs if pair[0] == b"namespace"]
    return len(spaces) == 1 and spaces[0] in {each.encode() for each in mine}


def test_what_is_seen():
    """A tenant gets its own samples, their metadata, blank lines, and the end mark."""
    output, asked, dropped = narrowed(EXPOSITION)
    assert output == SEEN
    assert sorted(asked) == ["bare", "payments", "shop", "web"]
    assert dropped == {"namespace": 0, "tenant": 13, "unparsed": 5}


def test_each_namespace_is_asked_for_once():
    """Each namespace is asked for once, however often it occurs and the input is cut."""
    _, asked, _ = narrowed(EXPOSITION * 3, range(len(EXPOSITION) * 3))
    assert sorted(asked) == ["bare", "payments", "shop", "web"]


def test_what_is_not_wanted_is_decided_all_the_same():
    """Each namespace is decided, even if no sample of it is selected."""
    everything = narrowed(EXPOSITION)[1]
    output, asked, dropped = narrowed(EXPOSITION, wanted=lambda name: name == "web")
    assert asked == everything
    assert b"payments" not in output.replace(SEEN.splitlines()[0], b"")
    foreign = narrowed(EXPOSITION)[2]["tenant"]
    assert dropped["tenant"] == foreign
    assert dropped["namespace"] > 0


def test_nothing_undecided_passes():
    """Samples of an undecided namespace cannot be taken, not even as an empty result."""
    tenant_stream = TenantFilter(lambda _: True, max_line=MAX_LINE)
    assert tenant_stream.feed(b'm{namespace="web"} 1\nm{namespace="shop"} 2\n') == {"web", "shop"}
    tenant_stream.decide({"web": True})
    with pytest.raises(KeyError):
        tenant_stream.take()


def test_an_unfinished_line_waits():
    """A line in two pieces is decided when it is complete."""
    tenant_stream = TenantFilter(lambda _: True, max_line=MAX_LINE)
    assert tenant_stream.feed(b'm{namespace="web') == set()
    assert tenant_stream.take() == b""
    assert tenant_stream.feed(b'-of-others"} 1\nm{namespace="web"} 2') == {"web-of-others"}
    tenant_stream.decide({"web-of-others": False})
    assert tenant_stream.take() == b""
    assert tenant_stream.finish() == {"web"}
    tenant_stream.decide({"web": True})
    assert tenant_stream.take() == b'm{namespace="web"} 2'


@pytest.mark.parametrize("allowed", [1, "yes", None, [True]])
def test_only_true_is_a_yes(allowed):
    """Only the value True lets a namespace pass."""
    tenant_stream = TenantFilter(lambda _: True, max_line=MAX_LINE)
    tenant_stream.feed(b'm{namespace="web"} 1\n')
    tenant_stream.decide({"web": allowed})
    assert tenant_stream.take() == b""


@pytest.mark.parametrize("cuts", [(), (10,), (30, 60), range(200)])
def test_a_long_line_does_not_pass(cuts):
    """No byte of a line over the limit passes, however it is cut. The next line passes."""
    line = b'm{namespace="web",a="%b"} 1\n' % (b"x" * 100)
    text = b'm{namespace="web"} 0\n' + line + b'm{namespace="web"} 2\n' + line[:-1]
    output, _, dropped = narrowed(text, cuts, limit=len(line) - 2)
    assert output == b'm{namespace="web"} 0\nm{namespace="web"} 2\n'
    assert dropped == {"namespace": 0, "tenant": 0, "unparsed": 2}
    assert narrowed(text, cuts, limit=len(line) - 1)[0] == text


def test_a_line_without_end_is_not_held():
    """No byte of a line over the limit stays in memory."""
    tenant_stream = TenantFilter(lambda _: True, max_line=100)
    for _ in range(10):
        tenant_stream.feed(b"x" * 60)
        assert len(tenant_stream._lines._tail) <= 100
    assert tenant_stream.dropped["unparsed"] == 1


def test_what_kubelets_say(corpus):
    """All samples with a namespace in a real kubelet's answer pass, and no line is odd."""
    for path in sorted(corpus.glob("*/*.prom")):
        text = path.read_bytes()
        everything = {name.decode() for name in set(re.findall(rb'[{,]namespace="([^"]+)"', text))}
        output, asked, dropped = narrowed(text, range(0, len(text), 5000), mine=everything)
        assert samples(output) == samples(text, mine=everything)
        assert dropped["unparsed"] == dropped["namespace"] == 0
        assert set(asked) == everything


def test_namespaces_are_bounded(monkeypatch):
    """The remembered namespaces are bounded. A forgotten one is asked for again."""
    monkeypatch.setattr("kmproxy.auth.tenant_filter.MAX_NAMESPACES", 10)
    text = b"".join([b'm{namespace="n%d"} 1\n' % number for number in range(100)])
    mine = {f"n{number}" for number in range(100)}
    cuts = [at + 1 for at in range(len(text)) if text[at] == 10]
    output, asked, _ = narrowed(text * 2, [*cuts, *[len(text) + cut for cut in cuts]], mine=mine)
    assert output == text * 2
    assert len(asked) == 200


def test_recent():
    """The namespaces of recent answers are known by path, and bounded."""
    recent = Recent(paths=2, names=3)
    assert recent.of("/a") == set()
    recent.note("/a", ["n1", "n2"])
    assert recent.of("/a") == {"n1", "n2"}
    recent.note("/a", ["n3"])
    assert recent.of("/a") == {"n3"}
    recent.note("/b", ["n1", "n2", "n3", "n4"])
    assert len(recent.of("/b")) == 3
    assert set(recent.of_all()) == {"n3", *recent.of("/b")}
    recent.note("/c", ["n1"])
    assert recent.of_all()[0] == "n1"
    assert [bool(recent.of(path)) for path in ("/a", "/b", "/c")] == [False, True, True]
    assert repr(recent) == "<Recent 2 paths>"


@examples
@given(text=anything, limit=limits, data=st.data())
def test_cuts_never_show(text, limit, data):
    """Every way to cut the input passes the same bytes with the same counts."""
    whole, asked, dropped = narrowed(text, limit=limit)
    for cuts in (data.draw(cut(text)), range(len(text))):
        got = narrowed(text, cuts, limit=limit)
        assert got[0] == whole
        assert set(got[1]) == set(asked)
        assert got[2] == dropped


@examples
@given(text=anything, limit=limits)
def test_as_a_plain_reading_says(text, limit):
    """The samples that pass are those that a byte-by-byte reader finds in allowed namespaces."""
    output, _, _ = narrowed(text, limit=limit)
    assert samples(output) == samples(text, limit=limit, mine=MINE)


def test_as_a_plain_reading_says_of_many():
    """The same for expositions as kubelets write them, with odd and broken lines."""
    rng = random.Random(5)
    for _ in range(150):
        limit = rng.choice(lines.LIMITS)
        text = lines.random_text(rng, 60, limit)
        output, _, _ = narrowed(text, lines.random_cuts(rng, text, limit), limit=limit)
        assert samples(output) == samples(text, limit=limit, mine=MINE)


@examples
@given(text=anything)
def test_who_may_see_nothing(text):
    """Without an allowed namespace no sample passes."""
    assert samples(narrowed(text, mine=())[0]) == []
