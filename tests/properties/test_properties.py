"""Properties of every exposition: bytes are kept, labels are right, cuts change nothing.

Each test builds the expected output beside the input, piece by piece. So it depends neither
on the engine nor on the reference reader.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support import lines
from tests.support.strategies import anything, cut, limits

# In CI the same examples every time: a failure there is one of the change at hand.
examples = settings(
    max_examples=200, deadline=None, database=None, derandomize=bool(os.environ.get("CI"))
)

# --- expositions that are anything ---------------------------------------------------------------

whole_lines = st.lists(anything.map(lambda text: text.replace(b"\n", b"") + b"\n"), max_size=9)


@examples
@given(text=anything, limit=limits, data=st.data())
def test_with_nothing_to_add_nothing_changes(engine, text, limit, data):
    """Without labels of any namespace the output equals the input."""
    reading = lines.by_engine(text, data.draw(cut(text)), labels={}, limit=limit, engine=engine)
    assert reading.output == text
    assert (reading.enriched, reading.conflicts) == (0, 0)


@examples
@given(text=anything, limit=limits, overwrite=st.booleans(), data=st.data())
def test_cuts_never_show(engine, text, limit, overwrite, data):
    """Every way to cut the input gives the same bytes and counts, also byte by byte."""
    options = {"overwrite": overwrite, "limit": limit}
    whole = lines.by_engine(text, **options, engine=engine)
    seen = lines.fed(text, **options, engine=engine)[1].enricher.seen
    for cuts in (data.draw(cut(text)), range(len(text))):
        assert lines.by_engine(text, cuts, **options, engine=engine) == whole
        assert lines.fed(text, cuts, **options, engine=engine)[1].enricher.seen == seen


@examples
@given(text=anything, overwrite=st.booleans(), names=st.sets(st.sampled_from(lines.ADDED)))
def test_names_foretold_never_show(engine, text, overwrite, names):
    """Announced label names only make it faster: output and counts are the same."""
    expected = lines.by_engine(text, overwrite=overwrite, engine=engine)
    assert lines.by_engine(text, names=names, overwrite=overwrite, engine=engine) == expected


@examples
@given(parts=whole_lines, overwrite=st.booleans())
def test_lines_know_nothing_of_each_other(engine, parts, overwrite):
    """Each line comes out as it does alone, and the counts are the sums."""
    alone = [lines.by_engine(part, overwrite=overwrite, engine=engine) for part in parts]
    together = lines.by_engine(b"".join(parts), overwrite=overwrite, engine=engine)
    assert together.output == b"".join(reading.output for reading in alone)
    for field in range(1, 5):
        assert together[field] == sum(reading[field] for reading in alone)


@examples
@given(text=anything)
def test_kept_bytes(engine, text):
    """With `keep`, each changed line without one run of added pairs equals the input line."""
    reading = lines.by_engine(text, engine=engine)
    pairs = {b",%b=%b" % pair for labels in lines.LABELS.values() for pair in labels}
    changed = 0
    for old, new in zip(text.split(b"\n"), reading.output.split(b"\n"), strict=True):
        if (size := len(new) - len(old)) == 0:
            assert new == old
            continue
        changed += 1
        starts = [
            at for at in range(len(old) + 1) if old[:at] + new[at : at + size] + old[at:] == new
        ]
        assert any(_made_of(new[at : at + size], pairs) for at in starts)
    assert changed == reading.enriched


def _made_of(text, pairs):
    """Whether the text consists of these pairs only, one or more in a row."""
    rests = [text[len(pair) :] for pair in pairs if text.startswith(pair)]
    return any(not rest or _made_of(rest, pairs) for rest in rests)


@examples
@given(text=anything, overwrite=st.booleans())
def test_twice_is_once(engine, text, overwrite):
    """A second enrichment changes nothing."""
    once = lines.by_engine(text, overwrite=overwrite, engine=engine)
    again = lines.by_engine(once.output, overwrite=overwrite, engine=engine)
    assert again.output == once.output
    assert (again.samples, again.unparsed) == (once.samples, once.unparsed)


# --- expositions that are valid ------------------------------------------------------------------


class Pair(NamedTuple):
    """A label as written: the text up to its value, then name and value unescaped."""

    lead: str
    name: str
    value: str


class Sample(NamedTuple):
    """A sample as written: `head` up to the labels, `tail` after them."""

    head: str
    pairs: Sequence[Pair]
    tail: str


def quoted(value):
    """A label value as the format writes it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def written(sample, labels, *, overwrite=False):
    """A sample's text with the labels of its namespace, and the number of conflicts."""
    borne = {pair.name: pair.value for pair in sample.pairs}
    space = borne.get("namespace")
    mine = labels.get(space, {}) if space else {}
    text = sample.head
    for lead, name, value in sample.pairs:
        text += lead + quoted(mine[name] if overwrite and name in mine else value)
        if name == "namespace":
            text += "".join(
                f",{key}={quoted(mine[key])}" for key in mine if key not in borne
            )  # fmt: skip
    return text + sample.tail, len(mine.keys() & borne.keys())


def written_all(samples, labels, end="", *, overwrite=False):
    """The bytes of an exposition, and its counts."""
    plain = [written(sample, {})[0] for sample in samples]
    rich = [written(sample, labels, overwrite=overwrite) for sample in samples]
    # To overwrite a value by itself counts as a change, too.
    added = sum(
        text != before or (overwrite and conflicts > 0)
        for before, (text, conflicts) in zip(plain, rich, strict=True)
    )
    output = ("".join(text for text, _ in rich) + end).encode()
    return lines.Reading(output, len(samples), added, 0, sum(conflicts for _, conflicts in rich))


words = st.text(st.characters(codec="utf-8"), max_size=6)
label_names = st.sampled_from(["team", "tier", "cost_center", "a", "exported_namespace"])
utf8_names = words.filter(
    lambda name: name not in {"", "namespace", "__name__"} and name[:2] != "__"
)
maps = st.dictionaries(
    st.sampled_from(["payments", "web", "", 'o"dd', "two\nlines", "back\\slash"]) | words,
    st.dictionaries(label_names, words.filter(bool), max_size=3),
    min_size=1,
    max_size=5,
)
values = st.sampled_from(["0", "1", "0.5", "-1.5e+07", "+Inf", "-Inf", "NaN", "4711"])


@st.composite
def labels_of_a_sample(draw, spaces, blanks, *, close, plain=False):
    """Pairs in any order, mostly with a namespace; `plain` means no quoted names."""
    choice = label_names if plain else label_names | utf8_names
    names = draw(st.lists(choice, max_size=4, unique=True))
    if draw(st.integers(0, 4)):
        names.insert(draw(st.integers(0, len(names))), "namespace")
    pairs = []
    for name in names:
        value = draw(st.sampled_from(spaces) | words) if name == "namespace" else draw(words)
        bare = plain or (name.isascii() and name.isidentifier() and draw(st.integers(0, 3)))
        shown = name if bare else quoted(name)
        comma = draw(blanks) + "," if pairs else ""
        lead = comma + draw(blanks) + shown + draw(blanks) + "=" + draw(blanks)
        pairs.append(Pair(lead, name, value))
    return pairs, draw(blanks) + (draw(close) if pairs else "") + draw(blanks) + "}"


@st.composite
def text_format(draw):
    """A label map, and samples of the text format with comments, quoted names and odd blanks."""
    labels = draw(maps)
    plain = draw(st.booleans())  # as cAdvisor writes
    blanks = st.sampled_from([""] if plain else ["", "", "", " ", "\t", " \t"])
    some = st.sampled_from([" "] if plain else [" ", " ", "\t", "  "])
    commas = st.sampled_from([""] if plain else ["", ","])
    samples = []
    for number in range(draw(st.integers(1, 6))):
        spaces = [*labels, "nobody", ""]
        pairs, close = draw(labels_of_a_sample(spaces, blanks, close=commas, plain=plain))
        head = draw(st.sampled_from(["", "# some words\n", "\n", '# {namespace="web"} 1\n', " \n"]))
        if plain or draw(st.integers(0, 4)):
            head += draw(blanks) + f"m:{number}" + draw(blanks) + "{"
        else:
            head += draw(blanks) + "{" + draw(blanks) + quoted(f"my.m{number}")
            if pairs:
                first = pairs[0]
                pairs[0] = first._replace(lead=draw(blanks) + "," + first.lead)
        tail = close + draw(some) + draw(values)
        if draw(st.booleans()):
            tail += draw(some) + str(draw(st.integers(-(10**13), 10**13)))
        samples.append(Sample(head, pairs, tail + draw(blanks) + "\n"))
    if draw(st.booleans()):
        samples[-1] = samples[-1]._replace(tail=samples[-1].tail.removesuffix("\n"))
    return labels, samples


@st.composite
def openmetrics_format(draw):
    """A label map, and a family of OpenMetrics counters with exemplars."""
    labels = draw(maps)
    none = st.just("")
    samples = []
    for number in range(draw(st.integers(1, 6))):
        pairs, close = draw(labels_of_a_sample([*labels, "nobody", ""], none, close=none))
        pairs.append(Pair("," * bool(pairs) + "number=", "number", str(number)))  # series differ
        tail = close + " " + draw(st.sampled_from(["0", "1", "0.5", "4711"]))
        if draw(st.booleans()):
            tail += f" {draw(st.integers(0, 10**10))}.5"
        if draw(st.booleans()):
            trace = draw(st.sampled_from(["", 'trace_id="abc"', 'namespace="web",team="x"']))
            tail += f" # {{{trace}}} 0.25" + draw(st.sampled_from(["", " 123.25"]))
        head = "# TYPE m counter\n" if number == 0 else ""
        samples.append(Sample(head + "m_total{", pairs, tail + "\n"))
    return labels, samples


def enriched(engine, case, data, end="", *, overwrite):
    """Checks the engine's output, counts and namespaces; returns input and output as text."""
    labels, samples = case
    text = written_all(samples, {}, end).output
    known = {
        space.encode(): [(name.encode(), quoted(value).encode()) for name, value in pairs.items()]
        for space, pairs in labels.items()
    }
    got = lines.by_engine(
        text, data.draw(cut(text)), labels=known, overwrite=overwrite, engine=engine
    )
    assert got == written_all(samples, labels, end, overwrite=overwrite)
    borne = [{pair.name: pair.value for pair in sample.pairs} for sample in samples]
    spaces = {pairs["namespace"].encode() for pairs in borne if pairs.get("namespace")}
    seen = lines.fed(text, labels=known, engine=engine)[1].enricher.seen
    assert seen == {
        space: b"".join(b",%b=%b" % pair for pair in known.get(space, ())) for space in spaces
    }
    return text.decode(), got.output.decode()


def check_labels(before, after, labels, *, overwrite):
    """The samples differ only in the labels of their namespaces."""
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        mine = labels.get(old.labels.get("namespace") or None, {})
        expected = old.labels | mine if overwrite else mine | old.labels
        assert new.labels == expected
        assert repr(new._replace(labels={})) == repr(old._replace(labels={}))  # NaN is not NaN


@pytest.mark.parametrize("overwrite", [False, True])
@examples
@given(case=text_format(), data=st.data())
def test_text_format(engine, case, overwrite, data):
    """All bytes and counts are right. prometheus_client sees exactly the added labels."""
    before, after = (
        [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        for text in enriched(engine, case, data, overwrite=overwrite)
    )
    assert len(before) == len(case[1])
    check_labels(before, after, case[0], overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@examples
@given(case=openmetrics_format(), data=st.data())
def test_openmetrics(engine, case, overwrite, data):
    """OpenMetrics: the same holds, and exemplars and the end mark are kept."""
    texts = enriched(engine, case, data, "# EOF\n", overwrite=overwrite)
    before, after = (
        [
            sample
            for family in openmetrics.text_string_to_metric_families(text)
            for sample in family.samples
        ]
        for text in texts
    )
    assert len(before) == len(case[1])
    assert texts[1].endswith("\n# EOF\n")
    check_labels(before, after, case[0], overwrite=overwrite)
