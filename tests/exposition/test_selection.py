"""The selection: which samples pass, and which labels are dropped from them."""

from __future__ import annotations

import random
import re

import pytest

from kmproxy.cli.flags import split_flags
from kmproxy.config.loader import Layer, load_sections
from kmproxy.config.recipe import read_selection
from kmproxy.config.samples import SelectionConfig
from kmproxy.errors import ConfigError
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import MAX_GLOB, MAX_GLOBS, MAX_NAME, QueryError
from kmproxy.exposition.selector import Selector
from kmproxy.exposition.series import SeriesError, SeriesRoom
from tests.support import lines, reference
from tests.support.engines import fed
from tests.support.mutations import mutate, random_line

TEXT = b"""\
# HELP cpu Seconds.
# TYPE cpu counter
cpu{namespace="a",pod="p"} 1 1000
cpu{namespace="b",pod="p"} 2 1000
cpu{namespace="",pod=""} 3 1000
# HELP lat Latency.
# TYPE lat histogram
lat_bucket{namespace="a",le="1"} 1
lat_bucket{namespace="a",le="+Inf"} 1
lat_sum{namespace="a"} 1
lat_count{namespace="a"} 1
# a comment
up 1

broken{namespace="a" 1
"""


def selection(*flags):
    """The selection of these flags."""
    values, problems = split_flags(flags, frozenset())
    assert not problems
    (config,) = load_sections([Layer("command line", "--", values)], SelectionConfig)
    return read_selection(config)


def select(engine, text, chosen, cut=None, **options):
    """Feeds a text, whole or in pieces; returns the output and the pipeline."""
    pipeline = Pipeline(lambda _: b"", Recipe(selection=chosen, **options), engine=engine)
    return fed(pipeline, text, cut), pipeline


def check(engine, text, expected, *flags, dropped=None):
    """Checks an output for every cut of the text, also without its last newline."""
    chosen = selection(*flags)
    for cut in (None, 1, 7, 64):
        output, selector = select(engine, text, chosen, cut)
        assert output == expected
        if dropped is not None:
            assert {key: count for key, count in selector.dropped.items() if count} == dropped
    bare = select(engine, text.removesuffix(b"\n"), chosen)[0]
    assert bare in (expected, expected.removesuffix(b"\n"))


def without(*prefixes):
    """The text without the lines with this prefix."""
    lines = TEXT.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(prefixes))


def test_everything(engine):
    """By default everything passes, and no stage is needed."""
    assert selection().everything
    check(engine, TEXT, TEXT, dropped={})
    assert not selection("--drop-metric=x").everything


@pytest.mark.parametrize(
    ("flags", "gone", "dropped"),
    [
        (["--drop-metric=cpu"], [b"cpu", b"# HELP cpu", b"# TYPE cpu"], 3),
        (["--drop-metric=cp"], [], 0),
        (
            ["--drop-metric=c.*", "--drop-metric=u."],
            [b"cpu", b"# HELP cpu", b"# TYPE cpu", b"up"],
            4,
        ),
        (["--drop-metric=lat"], [b"lat", b"# HELP lat", b"# TYPE lat"], 4),
        (["--drop-metric=lat_bucket"], [b"lat_bucket"], 2),
        (["--keep-metric=lat"], [b"cpu", b"# HELP cpu", b"# TYPE cpu", b"up"], 4),
        (["--keep-metric=cpu|up"], [b"lat", b"# HELP lat", b"# TYPE lat"], 4),
        (["--keep-metric=.*", "--drop-metric=up"], [b"up"], 1),
    ],
)
def test_metrics(engine, flags, gone, dropped):
    """Families keep or lose their HELP and TYPE. Expressions match the whole name."""
    counts = {"metric": dropped} if dropped else {}
    check(engine, TEXT, without(*gone) if gone else TEXT, *flags, dropped=counts)


@pytest.mark.parametrize(
    ("flags", "gone", "dropped"),
    [
        (["--namespace=a"], [b'cpu{namespace="b"'], 1),
        (["--namespace=[ab]"], [], 0),
        (["--namespace=x*"], [b'cpu{namespace="a"', b'cpu{namespace="b"', b"lat"], 6),
        (["--exclude-namespace=b*"], [b'cpu{namespace="b"'], 1),
        (["--namespace=a", "--namespace=b", "--exclude-namespace=b"], [b'cpu{namespace="b"'], 1),
        (["--cluster-samples=drop"], [b'cpu{namespace=""', b"up"], 2),
        (
            ["--namespace=a", "--cluster-samples=drop"],
            [b'cpu{namespace="b"', b'cpu{namespace=""', b"up"],
            3,
        ),
    ],
)
def test_namespaces(engine, flags, gone, dropped):
    """Globs match the whole name. Cluster samples follow --cluster-samples."""
    counts = {"namespace": dropped} if dropped else {}
    check(engine, TEXT, without(*gone) if gone else TEXT, *flags, dropped=counts)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'm{a="1",x="2",b="3"} 1 5', b'm{a="1",b="3"} 1 5'),
        (b'm{x="2",b="3"} 1', b'm{b="3"} 1'),
        (b'm{a="1",x="2"} 1', b'm{a="1"} 1'),
        (b'm{a="1",x="2",y="3"} 1', b'm{a="1"} 1'),
        (b'm{x="2",a="1",y="3"} 1', b'm{a="1"} 1'),
        (b'm{x="2",y="3",a="1"} 1', b'm{a="1"} 1'),
        (b'm{x="2"} 1', b"m{} 1"),
        (b'm{x="2",} 1', b"m{} 1"),
        (b'm{a="1",x="2",} 1', b'm{a="1",} 1'),
        (b'm{ a="1" , x = "2" , b="3" } 1', b'm{ a="1" , b="3" } 1'),
        (b'{"my.m","x"="2"} 1', b'{"my.m"} 1'),
        (b'{"my.m","x"="2",} 1', b'{"my.m",} 1'),
        (b'{x="2","my.m"} 1', b'{"my.m"} 1'),
        (b'{x="2" "my.m" , y="3" a="1"} 1', b'{"my.m" , a="1"} 1'),
        (b'{a="1" x="2""my.m",y="3"} 1', b'{a="1" "my.m"} 1'),
        (b'{a="1","x",x="2"} 1', b'{a="1","x"} 1'),
        (b'm{a="1"x="2"b="3"} 1', b'm{a="1"b="3"} 1'),
        (b'm{ x = "2" , } 1', b"m{  } 1"),
        (b'{"my.m" x="2"} 1', b'{"my.m" x="2"} 1'),
        (b'm{exported_x="2"} 1', b'm{exported_x="2"} 1'),
        (b'm{a="x=",x="\\"y"} 1', b'm{a="x="} 1'),
        (b'm 1 # {x="2"} 1', b'm 1 # {x="2"} 1'),
        (b'm{x="2" 1', b'm{x="2" 1'),
    ],
)
def test_labels_are_taken_off(engine, before, after):
    """A pair is removed with one comma. All other bytes stay."""
    check(engine, before + b"\n", after + b"\n", "--drop-label=x", "--drop-label=y")


@pytest.mark.parametrize(
    "line",
    [
        b'{"my.m",namespace="a"} 1',
        b'{namespace="a","my.m"} 1',
        b'{x="1" "my.m",namespace="a"} 1',
        b'{"namespace"="a" , x="1" "my.m" , } 1',
        b'{x="1""my.m",namespace="a"y="2"} 1 17',
    ],
)
def test_a_metrics_name_anywhere_in_the_braces(engine, line):
    """Metric name and namespace select the sample in any position."""
    text = line + b"\n"
    check(engine, text, text, r"--keep-metric=my\.m", "--namespace=a")
    check(engine, text, b"", "--drop-metric=my.*", dropped={"metric": 1})
    check(engine, text, b"", "--keep-metric=a|namespace|x", dropped={"metric": 1})
    check(engine, text, b"", "--exclude-namespace=a", dropped={"namespace": 1})
    check(engine, text, text.replace(b" 17", b""), "--timestamps=strip")
    check(engine, b"# TYPE a counter\n" + text, text, "--drop-metric=a")


def test_series_that_become_one(engine):
    """The first series is served, others are counted. A repeated series is not merged."""
    text = b'm{a="1",x="1"} 1\nm{x="2",a="1"} 2\nm{a="2",x="1"} 3\nm{a="2",x="1"} 4 5\nm{a="1",b=""} 6\n'
    expected = b'm{a="1"} 1\nm{a="2"} 3\nm{a="2"} 4 5\n'
    check(engine, text, expected, "--drop-label=x", dropped={"merged": 2})
    text = b'm{a="1",x="1"} 1\n{a="1" "m"} 2\n{x="3","m",a="1"} 3\n{a="1","m",b="2"} 4\n'
    expected = b'm{a="1"} 1\n{a="1","m",b="2"} 4\n'
    check(engine, text, expected, "--drop-label=x", dropped={"merged": 2})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'm{a="1"} 1 1000', b'm{a="1"} 1'),
        (b'm{namespace="a",b="} 1 2"} 3 1000', b'm{namespace="a",b="} 1 2"} 3'),
        (b'm{namespace="a"} 3', b'm{namespace="a"} 3'),
        (b"m 1  -5 ", b"m 1 "),
        (b"m 1", b"m 1"),
        (b'm 1 5.5 # {a="b"} 1 2', b'm 1 # {a="b"} 1 2'),
        (b"m 1 x", b"m 1 x"),
    ],
)
def test_timestamps_are_taken_off(engine, before, after):
    """A sample's own timestamp is removed, with the blanks before it."""
    check(engine, before + b"\n", after + b"\n", "--timestamps=strip")


def test_two_namespaces(engine):
    """A sample with two namespaces passes, as an unparsed line does."""
    line = b'm{namespace="a",namespace="b"} 1\n'
    check(engine, line, line, "--namespace=x")


def test_long_lines_pass(engine):
    """A line over the limit passes unread, for every cut."""
    text = b'm{namespace="b",a="' + b"x" * 100 + b'"} 1\n' + b'm{namespace="b"} 1\n'
    for cut in (None, 1, 50):
        output, _ = select(engine, text, selection("--namespace=a"), cut, max_line=50)
        assert output == text.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("flags", "query", "namespaces", "metrics"),
    [
        ([], {}, "ab-", "cpu up"),
        ([], {"namespace": ["a"]}, "a-", "cpu up"),
        ([], {"namespace": ["a", "b"]}, "ab-", "cpu up"),
        ([], {"namespace": [""]}, "-", "cpu up"),
        (["--namespace=a"], {"namespace": ["b"]}, "-", "cpu up"),
        (["--namespace=a"], {"namespace": ["*"]}, "a-", "cpu up"),
        (["--exclude-namespace=a"], {"namespace": ["a", "b"]}, "b-", "cpu up"),
        (["--cluster-samples=drop"], {"cluster-samples": ["keep"]}, "ab", "cpu up"),
        ([], {"cluster-samples": ["drop"]}, "ab", "cpu up"),
        ([], {"metric": ["c*"]}, "ab-", "cpu"),
        (["--keep-metric=up"], {"metric": ["c*"]}, "ab-", ""),
        (["--drop-metric=cpu"], {"metric": ["*"]}, "ab-", "up"),
        ([], {"metric": ["c.*"]}, "ab-", ""),
    ],
)
def test_a_request_narrows(flags, query, namespaces, metrics):
    """A query can remove samples within the flags' selection, and add none."""
    chosen = selection(*flags).narrow(query)
    assert "".join(n for n in "ab-" if chosen.wants_namespace(n.strip("-"))) == namespaces
    assert " ".join(m for m in ("cpu", "up") if chosen.wants_metric([m])) == metrics


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"namespce": ["a"]}, "'namespce' is not known: the known keys are namespace, metric, cl"),
        ({"x" * 999: [""]}, f"query key '{'x' * 60}' is not known"),
        ({"namespace": ["a"] * (MAX_GLOBS + 1)}, f"at most {MAX_GLOBS}"),
        ({"metric": ["a"] * (MAX_GLOBS + 1)}, f"at most {MAX_GLOBS}"),
        ({"namespace": ["a" * (MAX_GLOB + 1)]}, f"over {MAX_GLOB} characters"),
        ({"metric": ["*" * 8000]}, f"over {MAX_GLOB} characters"),
        ({"cluster-samples": ["drop", "dorp"]}, "'dorp' is neither 'keep' nor 'drop'"),
    ],
)
def test_a_query_that_is_none(query, problem):
    """A wrong query is refused by name: a misspelt key must not serve everything."""
    with pytest.raises(QueryError, match=re.escape(problem)):
        selection().narrow(query)


def test_globs_at_their_limit():
    """Globs of the maximum number and length are accepted."""
    chosen = selection().narrow({"namespace": ["a" * MAX_GLOB] * MAX_GLOBS})
    assert chosen.wants_namespace("a" * MAX_GLOB)
    assert not chosen.wants_namespace("a")


def test_names_that_are_too_long_match_nothing(engine):
    """No expression runs on a megabyte of a kubelet's text."""
    long = b"m" * (MAX_NAME + 1)
    text = b"%b 1\n%b 1\n" % (long, long[1:])
    check(engine, text, b"%b 1\n" % long, "--drop-metric=.*", dropped={"metric": 1})
    check(engine, text, b"%b 1\n" % long[1:], "--keep-metric=.*", dropped={"metric": 1})
    lines = b'm{namespace="%b"} 1\nm{namespace="%b"} 1\n' % (long, long[1:])
    check(engine, lines, lines[MAX_NAME + 19 :], "--namespace=*", dropped={"namespace": 1})


@pytest.mark.parametrize("flag", ["--drop-metric=x", "--namespace=*", "--timestamps=strip"])
def test_what_is_remembered_of_names_is_bounded(flag, monkeypatch):
    """New metrics, families and namespaces take a bounded number of bytes."""
    monkeypatch.setattr("kmproxy.exposition.selector.MAX_REMEMBERED", 100_000)
    selector = Selector(selection(flag))
    for start in range(0, 3000, 100):
        names = [b"m%d" % number + b"x" * 900 for number in range(start, start + 100)]
        selector.feed(b"".join([b'%b{namespace="%b"} 1\n' % (name, name) for name in names]))
        selector.feed(b"".join([b"# TYPE %b gauge\n%b 1\n" % (name, name) for name in names]))
        held = [*selector._here, *selector._namespaces, *sum(selector._metrics, ())]
        assert sum(map(len, held)) < 300_000


def test_series_are_bounded(engine, monkeypatch):
    """Over the bound the exposition ends with an error, so no series appears twice."""
    monkeypatch.setattr("kmproxy.exposition.series.MAX_SERIES", 200 * 10)
    lines = [b'm{a="%d",x="1"} 1\n' % number for number in range(11)]
    expected = b"".join(lines[:10]).replace(b',x="1"', b"")
    pipeline = dropping(engine, SeriesRoom())
    assert pipeline.feed(b"".join(lines[:10])) == expected
    assert pipeline.feed(lines[0].replace(b'x="1"', b'x="2"')) == b""
    assert pipeline.dropped["merged"] == 1
    with pytest.raises(SeriesError, match="over 10 series"):
        pipeline.feed(lines[10])


def dropping(engine, room):
    """A pipeline that takes one label off."""
    recipe = Recipe(selection=selection("--drop-label=x"))
    return Pipeline(lambda _: b"", recipe, room=room, engine=engine)


def test_series_are_bounded_together(engine, monkeypatch):
    """Over the total bound the largest exposition ends, and frees its memory."""
    monkeypatch.setattr("kmproxy.exposition.series.MAX_SERIES", 200 * 10)
    room = SeriesRoom()
    large, small, later = (dropping(engine, room) for _ in range(3))
    lines = [b'm{a="%d"} 1\n' % number for number in range(20)]
    assert large.feed(b"".join(lines[:7]))
    for line in lines[:5]:
        assert small.feed(line) == line
    with pytest.raises(SeriesError, match="over 6 series"):
        large.feed(lines[0])
    small.close()
    assert later.feed(b"".join(lines[:10])) == b"".join(lines[:10])
    assert repr(room) == "<SeriesRoom 10 series of 1 expositions>"


@pytest.mark.parametrize(
    "flag",
    [
        "--drop-metric=(",
        "--drop-label=a-b",
        "--drop-label=namespace",
        "--timestamps=off",
        "--namespace=",
    ],
)
def test_what_is_no_selection(flag):
    """An invalid flag is refused."""
    with pytest.raises(ConfigError):
        selection(flag)


PLAIN_SELECTIONS = [
    (["--namespace=p*", "--drop-metric=a:b.*"], {}),
    (["--timestamps=strip"], {"strip": True}),
    (["--timestamps=strip", "--namespace=p*", "--drop-metric=a:b.*"], {"strip": True}),
    (["--drop-label=team", "--drop-label=a"], {"drop_labels": (b"team", b"a")}),
    (["--drop-label=le", "--drop-label=pod", "--drop-label=id", "--timestamps=strip",
      "--cluster-samples=drop"], {"drop_labels": (b"le", b"pod", b"id"), "strip": True}),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "taken_off"), PLAIN_SELECTIONS)
@pytest.mark.parametrize("seed", range(8))
def test_the_plain_reading_agrees(engine, seed, flags, taken_off):
    """On random and mutated lines, output and counts agree with the reference reader."""
    rng = random.Random(seed)
    chosen = selection(*flags)
    dropped = dict.fromkeys(("metric", "namespace", "merged"), 0)
    changed = 0
    for turn in range(60):
        if turn % 2:
            text = b"".join(mutate(random_line(rng), rng) for _ in range(rng.randrange(1, 30)))
        else:
            text = lines.random_text(rng, rng.randrange(1, 40))
        slow = reference.Selector(
            wants_metric=lambda name: "--drop-metric=a:b.*" not in flags or name[:3] != b"a:b",
            wants_namespace=lambda space: wants(flags, space),
            **taken_off,
        )
        expected = reference.select(text, slow)
        for cut in (None, 1, rng.randrange(1, 40)):
            output, selector = select(engine, text, chosen, cut)
            assert output == expected
            assert selector.dropped == slow.dropped
        changed += expected != text
        for by, count in slow.dropped.items():
            dropped[by] += count
    assert changed > 20
    assert (dropped["metric"] > 0) == ("--drop-metric=a:b.*" in flags)
    assert (dropped["merged"] > 0) == ("drop_labels" in taken_off)


def wants(flags, space):
    """Whether samples of a namespace pass these flags, without the selection's own code."""
    if not space:
        return "--cluster-samples=drop" not in flags
    return "--namespace=p*" not in flags or space[:1] == b"p"
