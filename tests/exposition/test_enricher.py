"""The enricher: which samples get which labels, and that no other byte changes."""

from __future__ import annotations

import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kmproxy.exposition.enricher import Enricher
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.remembered import MAX_NAMESPACE, MAX_REMEMBERED
from kmproxy.exposition.splitter import PlainSplitter
from tests.support import reference
from tests.support.engines import fed
from tests.support.mutations import mutate, random_line

LABELS = {
    b"payments": [(b"team", b'"payments"')],
    b"web": [(b"team", b'"front"'), (b"tier", b'"a\\"b"')],
    b'o"dd': [(b"team", b'"odd"')],
    b"bare": [],
}


def lookup(namespace):
    """The bytes that the label map would give."""
    return b"".join(b"," + name + b"=" + value for name, value in LABELS.get(namespace, ()))


def enrich(engine, text, cut=None, **options):
    """Feed a text, whole or in pieces of `cut` bytes; returns the output and the counts."""
    pipeline = Pipeline(lookup, Recipe(**options), engine=engine)
    return fed(pipeline, text, cut), pipeline.enricher


def check(engine, before, after, **options):
    """A line becomes another: alone, byte by byte, without a newline, and among others."""
    for text, expected in (
        (before + b"\n", after + b"\n"),
        (before, after),
        (b"# HELP m x\n" + before + b"\nother 1\n", b"# HELP m x\n" + after + b"\nother 1\n"),
    ):
        for cut in (None, 1, 7):
            assert enrich(engine, text, cut, **options)[0] == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'm{namespace="payments"} 1', b'm{namespace="payments",team="payments"} 1'),
        (b'm{a="",namespace="payments",z="1"} 1.5e+07 1795208082328',
         b'm{a="",namespace="payments",team="payments",z="1"} 1.5e+07 1795208082328'),
        (b'm{namespace="web"} +Inf', b'm{namespace="web",team="front",tier="a\\"b"} +Inf'),
        (b'm{namespace="web",} NaN', b'm{namespace="web",team="front",tier="a\\"b",} NaN'),
        (b' \tm {\tnamespace = "payments" , a = "b" , } -1 \t',
         b' \tm {\tnamespace = "payments",team="payments" , a = "b" , } -1 \t'),
        (b'm{namespace="payments"}1', b'm{namespace="payments",team="payments"}1'),
        (b'{"my.m","namespace"="payments"} 1', b'{"my.m","namespace"="payments",team="payments"} 1'),
        (b'{"my.m",namespace="payments"} 1', b'{"my.m",namespace="payments",team="payments"} 1'),
        (b'm{namespace="o\\"dd"} 1', b'm{namespace="o\\"dd",team="odd"} 1'),
        (b'm{a="x\\\\",namespace="payments"} 1', b'm{a="x\\\\",namespace="payments",team="payments"} 1'),
        (b'm{a="}",b="# {",namespace="payments"} 1', b'm{a="}",b="# {",namespace="payments",team="payments"} 1'),
        (b'm_bucket{le="1",namespace="payments"} 3 # {trace_id="a"} 0.5 1.2',
         b'm_bucket{le="1",namespace="payments",team="payments"} 3 # {trace_id="a"} 0.5 1.2'),
        (b'm{a="\xff\x00\r",namespace="payments"} 1', b'm{a="\xff\x00\r",namespace="payments",team="payments"} 1'),
        (b'a:b{namespace="payments"} .5', b'a:b{namespace="payments",team="payments"} .5'),
        # The metric's name, quoted, anywhere in the braces; pairs without a comma.
        (b'{namespace="payments","my.m"} 1', b'{namespace="payments",team="payments","my.m"} 1'),
        (b'{a="1","my.m",namespace="payments"} 1', b'{a="1","my.m",namespace="payments",team="payments"} 1'),
        (b'{namespace="payments" , "my.m" , a="1" , }1',
         b'{namespace="payments",team="payments" , "my.m" , a="1" , }1'),
        (b'{namespace="payments""my.m"} 1 17', b'{namespace="payments",team="payments""my.m"} 1 17'),
        (b'{a="1"\t"my.m",} 1\n{namespace="payments" "my.m",} 1',
         b'{a="1"\t"my.m",} 1\n{namespace="payments",team="payments" "my.m",} 1'),
        (b'm{a="1" namespace="payments" b="2"} 1', b'm{a="1" namespace="payments",team="payments" b="2"} 1'),
        (b'm{a="1"namespace="payments"b="2"} 1', b'm{a="1"namespace="payments",team="payments"b="2"} 1'),
        (b'{"namespace",namespace="payments"} 1', b'{"namespace",namespace="payments",team="payments"} 1'),
        (b'{"namespace"="payments","namespace"} 1', b'{"namespace"="payments",team="payments","namespace"} 1'),
        (b'{namespace="payments","team"} 1', b'{namespace="payments",team="payments","team"} 1'),
        (b'{"team",namespace="payments"} 1', b'{"team",namespace="payments",team="payments"} 1'),
        (b'{"x=",namespace="payments",team2="t"} 1', b'{"x=",namespace="payments",team="payments",team2="t"} 1'),
        (b'{namespace="payments","m"} 1 # {a="b"} 1', b'{namespace="payments",team="payments","m"} 1 # {a="b"} 1'),
    ],
)  # fmt: skip
def test_labels_are_added(engine, before, after):
    """The labels of a sample's namespace stand right after its `namespace` pair."""
    check(engine, before, after)
    assert enrich(engine, before)[1].enriched == 1


@pytest.mark.parametrize(
    "line",
    [
        b"m 1",
        b"m{} 1",
        b'm{namespace=""} 1',
        b'm{namespace="unknown"} 1',
        b'm{namespace="bare"} 1',
        b'm{exported_namespace="payments"} 1',
        b'm{a="namespace=\\"payments\\""} 1',
        b'm{a=",namespace=",b="payments"} 1',
        b'm{Namespace="payments"} 1',
        b'm{namespace="payments\\n"} 1',
        b'm{namespace="\\payments"} 1',
        b'm{a="1"} 1 # {namespace="payments"} 1',
        b'{"namespace"} 1',
        b'{"namespace",a="payments"} 1',
    ],
)
def test_samples_without_labels_to_add(engine, line):
    """Only a label named exactly `namespace`, not empty and known, adds labels."""
    check(engine, line, line)
    enricher = enrich(engine, line)[1]
    assert (enricher.samples, enricher.enriched, enricher.unparsed) == (1, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" \t ",
        b"#",
        b'# m{namespace="payments"} 1',
        b'#m{namespace="payments"} 1',
        b' # HELP m {namespace="payments"}',
        b"# EOF",
    ],
)
def test_comments_and_blank_lines(engine, line):
    """They pass unchanged, and are not counted."""
    check(engine, line, line)
    enricher = enrich(engine, line)[1]
    assert (enricher.samples, enricher.enriched, enricher.unparsed) == (0, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b'm{namespace="payments"}',
        b'm{namespace="payments"} ',
        b'm{namespace="payments" 1',
        b'm{namespace="payments} 1',
        b"m{namespace=payments} 1",
        b'm{namespace "payments"} 1',
        b'm{namespace="payments" a} 1',
        b'{"my.m" namespace="payments"} 1',
        b'{"my.m"namespace="payments"} 1',
        b'{"my.m",,namespace="payments"} 1',
        b'{,"my.m",namespace="payments"} 1',
        b'{"my.m",namespace="payments","n"} 1',
        b'{namespace="payments" "my.m" "n"} 1',
        b'{namespace="payments",,"my.m"} 1',
        b'{namespace="payments" "my.m",namespace="web"} 1',
        b'{my.m,namespace="payments"} 1',
        b'm{namespace="payments","my.m"} 1',
        b'm{namespace="payments"} 1 # {a="b" c="d"} 1',
        b'{namespace="payments","my.m"} 1 # {a="b","n"} 1',
        b"{} 1",
        b'm{namespace="payments",,} 1',
        b'm{,namespace="payments"} 1',
        b'm{namespace="payments"}} 1',
        b'm{{namespace="payments"} 1',
        b'm{namespace="payments"} abc',
        b'm{namespace="payments"} 1 abc',
        b'm{namespace="payments"} 1 2 3',
        b'm{namespace="payments"} 1\r',
        b'm{namespace="payments"} 0x1p-2',
        b'm{namespace="payments"} 1_000',
        b'm{namespace="payments"} +nan',
        b'm{namespace="payments"} --1',
        b'm{namespace="payments"} 1 # {a="b"}',
        b'm{namespace="payments"} 1 # 5',
        b'm{namespace="payments",namespace="web"} 1',
        b'm{namespace="",namespace="web"} 1',
        b'm{namespace="payments","namespace"="web"} 1',
        b'{namespace="payments"} 1',
        b'1m{namespace="payments"} 1',
        b'm-x{namespace="payments"} 1',
        b'm{a-b="",namespace="payments"} 1',
        b'm{"my.m",namespace="payments"} 1',
        b'm{a="\\",namespace="payments"} 1',
        b'm{namespace="payments\\"} 1',
        b'm{namespace="payments",a="\\"} 1',
        b"m1",
        b"m",
        b"<html>",
        b'\xff{namespace="payments"} 1',
    ],
)
def test_lines_not_understood(engine, line):
    """An unparsed line passes unchanged and is counted. Other lines are not affected."""
    check(engine, line, line)
    enricher = enrich(engine, line + b'\nm{namespace="payments"} 1\n')[1]
    assert (enricher.samples, enricher.enriched, enricher.unparsed) == (1, 1, 1)


@pytest.mark.parametrize(
    ("line", "kept", "overwritten", "conflicts"),
    [
        (b'm{namespace="payments",team="x"} 1',
         b'm{namespace="payments",team="x"} 1',
         b'm{namespace="payments",team="payments"} 1', 1),
        (b'm{team="x",namespace="web"} 1',
         b'm{team="x",namespace="web",tier="a\\"b"} 1',
         b'm{team="front",namespace="web",tier="a\\"b"} 1', 1),
        (b'm{tier="",namespace="web",team="x\\"y"} 1',
         b'm{tier="",namespace="web",team="x\\"y"} 1',
         b'm{tier="a\\"b",namespace="web",team="front"} 1', 2),
        (b'm{namespace="payments", "team" = "x" } 1',
         b'm{namespace="payments", "team" = "x" } 1',
         b'm{namespace="payments", "team" = "payments" } 1', 1),
        (b'm{namespace="bare",team="x"} 1', b'm{namespace="bare",team="x"} 1',
         b'm{namespace="bare",team="x"} 1', 0),
        (b'm{namespace="payments",my_team="x"} 1',
         b'm{namespace="payments",team="payments",my_team="x"} 1',
         b'm{namespace="payments",team="payments",my_team="x"} 1', 0),
        (b'm{namespace="payments",a="team=\\"x\\""} 1',
         b'm{namespace="payments",team="payments",a="team=\\"x\\""} 1',
         b'm{namespace="payments",team="payments",a="team=\\"x\\""} 1', 0),
        (b'{namespace="payments",team="x","my.m"} 1',
         b'{namespace="payments",team="x","my.m"} 1',
         b'{namespace="payments",team="payments","my.m"} 1', 1),
        (b'{team="x""team",namespace="web" tier=""a="1"} 1',
         b'{team="x""team",namespace="web" tier=""a="1"} 1',
         b'{team="front""team",namespace="web" tier="a\\"b"a="1"} 1', 2),
        (b'{"team=","namespace" = "payments" "team"="x" , } 1',
         b'{"team=","namespace" = "payments" "team"="x" , } 1',
         b'{"team=","namespace" = "payments" "team"="payments" , } 1', 1),
        (b'{team="x",namespace="payments","team=",a="1"} 1 # {team="y"} 1',
         b'{team="x",namespace="payments","team=",a="1"} 1 # {team="y"} 1',
         b'{team="payments",namespace="payments","team=",a="1"} 1 # {team="y"} 1', 1),
    ],
)  # fmt: skip
def test_conflicts(engine, line, kept, overwritten, conflicts):
    """`keep` keeps the sample's value, `overwrite` replaces it. Both count the conflict."""
    check(engine, line, kept, on_conflict="keep")
    check(engine, line, overwritten, on_conflict="overwrite")
    for choice, output in (("keep", kept), ("overwrite", overwritten)):
        enricher = enrich(engine, line, on_conflict=choice)[1]
        assert enricher.conflicts == conflicts
        assert enricher.enriched == (output != line)


@pytest.mark.parametrize(
    "lines",
    [
        b'm{a="x\ny",namespace="payments"} 1\n',
        b'm{namespace="pay\nments"} 1\n',
        b'm{namespace="payments",a="\n"} 1\n',
        b'm{a="1",b="\nm{a=",namespace="payments"} 1\n',
        b'm{a="\n# ",namespace="payments"} 1\n',
    ],
)
def test_no_string_goes_over_a_line(engine, lines):
    """A newline ends the line, also inside quotes. Both halves are unparsed."""
    good = b'm{namespace="payments"} 1\n'
    expected = reference.enrich(good + lines + good, LABELS)
    for cut in (None, 1):
        output, enricher = enrich(engine, good + lines + good, cut)
        assert output == expected.output
        assert (enricher.samples, enricher.unparsed) == (expected.samples, expected.unparsed)
    assert lines in output


def test_long_lines_pass_in_pieces(engine):
    """A line over the limit passes unchanged and is counted, however it is cut."""
    sample = b'm{namespace="payments"} 1\n'
    fits = b'm{a="' + b"x" * 70 + b'",namespace="payments"} 1\n'
    assert len(fits) == 101
    long = b'm{a="' + b"x" * 71 + b'",namespace="payments"} 1\n'
    comment = b"# " + b"x" * 200 + b"\n"
    blanks = b" " * 150 + b"# who knows\n"
    text = sample + fits + long + comment + blanks + sample + long[:-1]
    expected = reference.enrich(text, LABELS, max_line=100)
    assert expected.enriched == 3
    for cut in (None, 1, 2, 99, 100, 101, 102, 150):
        output, enricher = enrich(engine, text, cut, max_line=100)
        assert output == expected.output
        assert (enricher.samples, enricher.enriched, enricher.unparsed) == (3, 3, 3)


def test_memory_is_bounded_by_the_line(engine):
    """An unfinished line holds at most `max_line` bytes and one piece."""
    enricher = Pipeline(lookup, Recipe(max_line=1000), engine=engine)
    passed = sum(len(enricher.feed(b"x" * 100)) for _ in range(100))
    assert passed >= 100 * 100 - 1100


def test_one_state_of_a_namespace_per_exposition(engine):
    """A label that changes during an exposition shows in the next one."""
    team = iter([b',team="old"', b',team="new"'])
    enricher = Pipeline(lambda _: next(team), Recipe(), engine=engine)
    line = b'm{namespace="payments"} 1\n'
    assert enricher.feed(line) == enricher.feed(line) == b'm{namespace="payments",team="old"} 1\n'


@pytest.mark.parametrize("size", [1, 55, 6000])
def test_what_is_remembered_of_namespaces_is_bounded(size):
    """Ever new namespaces of any length take a bounded number of bytes."""
    enricher = Enricher(lambda _: b',team="x"')
    count = 20_000 if size < 1000 else 2000
    for start in range(0, count, 100):
        names = [b"%d" % number + b"x" * size for number in range(start, start + 100)]
        text = b"".join([b'm{namespace="%b"} 1\n' % name for name in names])
        assert enricher.feed(text) == text.replace(b"} 1", b',team="x"} 1')
    labels = enricher._labels
    held = [labels.rendered, enricher._tagged, labels._pairs]
    assert (
        sum(len(key) + len(value) for each in held for key, value in each.items()) < MAX_REMEMBERED
    )
    assert len(enricher.seen) == (0 if size > MAX_NAMESPACE else len(labels.rendered))
    assert (enricher.samples, enricher.enriched) == (count, count)


def test_what_is_too_long_for_a_namespace_gets_the_defaults(engine):
    """A value that is too long for a name is looked up, but not remembered."""
    name = b"n" * (MAX_NAMESPACE + 1)
    line = b'm{namespace="%b"} 1\nm{ namespace="%b"} 1\nm{team="x",namespace="%b"} 1\n' % (
        (name,) * 3
    )
    recipe = Recipe(on_conflict="overwrite")
    pipeline = Pipeline(lambda _: b',team="none"', recipe, engine=engine)
    assert pipeline.feed(line).count(b'team="none"') == 3
    assert not pipeline.enricher.seen


def test_new_names_are_searched_for_a_bounded_number_of_times(monkeypatch):
    """With a new label for each namespace, lines are soon read one by one, and stay right."""
    monkeypatch.setattr("kmproxy.exposition.base_enricher.MAX_TURNS", 3)
    made = []
    monkeypatch.setattr(
        "kmproxy.exposition.enricher.plain_splitter",
        lambda names: made.append(names) or PlainSplitter(names),
    )
    labels = {b"n%d" % n: [(b"l%d" % n, b'"v"'), (b"team", b'"t"')] for n in range(50)}
    text = b"".join(
        b'm{namespace="n%d",team="x"} 1\nm{namespace="n%d",l%d="x"} 1\nm{l1="x",namespace="n%d" } 1\n'
        % (n, n, (n + 1) % 50, n)
        for n in range(50)
    )
    for overwrite in (False, True):
        expected = reference.enrich(text, labels, overwrite=overwrite)
        enricher = Enricher(
            lambda space: b"".join([b",%b=%b" % pair for pair in labels[space]]),
            on_conflict="overwrite" if overwrite else "keep",
        )
        output = b"".join(enricher.feed(text[at : at + 90]) for at in range(0, len(text), 90))
        assert output + enricher.finish() == expected.output
        assert len(set(made)) == 4
        made.clear()
        assert (enricher.samples, enricher.conflicts) == (expected.samples, expected.conflicts)


def test_empty_input(engine):
    """Empty input gives empty output."""
    assert enrich(engine, b"")[0] == b""


@pytest.mark.parametrize("seed", range(20))
def test_the_plain_reading_agrees(engine, seed):
    """On random and mutated lines the engine agrees with the reference reader."""
    rng = random.Random(seed)
    for _ in range(60):
        text = b"".join(mutate(random_line(rng), rng) for _ in range(rng.randrange(1, 40)))
        overwrite = rng.random() < 0.5
        expected = reference.enrich(text, LABELS, overwrite=overwrite, max_line=200)
        options = {"on_conflict": "overwrite" if overwrite else "keep", "max_line": 200}
        for cut in (None, 1, rng.randrange(1, 50)):
            output, enricher = enrich(engine, text, cut, **options)
            assert output == expected.output
            counts = (enricher.samples, enricher.enriched, enricher.unparsed, enricher.conflicts)
            assert counts == (
                expected.samples,
                expected.enriched,
                expected.unparsed,
                expected.conflicts,
            )
        assert enrich_nothing(engine, text) == text


def enrich_nothing(engine, text):
    """Enriches without labels of any namespace."""
    return fed(Pipeline(lambda _: b"", Recipe(), engine=engine), text)


def test_an_independent_parser_sees_just_the_added_labels(engine):
    """prometheus_client reads the same samples, with exactly the added labels."""
    text = b"".join(
        b'm%d{a="%d",namespace="%b",pod="p"} %d 1000\n' % (n, n, space, n)
        for n, space in enumerate([b"payments", b"", b"web", b"nobody", b"bare"] * 20)
    )
    before = list(text_string_to_metric_families(text.decode()))
    after = list(text_string_to_metric_families(enrich(engine, text, 64)[0].decode()))
    added = {"payments": {"team": "payments"}, "web": {"team": "front", "tier": 'a"b'}}
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.samples, new.samples, strict=True):
            assert now.labels == was.labels | added.get(was.labels["namespace"], {})
            assert now._replace(labels={}) == was._replace(labels={})


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.35", "1.36"])
def test_recorded_answers(engine, corpus, version):
    """Every line of real kubelets' answers is parsed, and the reference reader agrees."""
    for file in sorted((corpus / version).glob("*.prom")):
        text = file.read_bytes()
        expected = reference.enrich(text, LABELS)
        output, enricher = enrich(engine, text, 65536)
        assert output == expected.output
        assert enricher.unparsed == 0
        assert enricher.samples == expected.samples
        assert enrich_nothing(engine, text) == text
