"""The compiled engine beside the pure one, where the two work in different ways."""

import gc
import random
import re
import weakref
from itertools import count, product

import pytest

from kmproxy.exposition.engine import available
from kmproxy.exposition.grammar import NUMBER, Sample
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from kmproxy.exposition.series import SeriesError, SeriesRoom
from tests.support import general_lines, lines
from tests.support.pipeline_cases import fed

if "compiled" not in available():
    pytest.skip("kmproxy-engine is not installed: make engine builds it", allow_module_level=True)

import kmproxy_engine

from kmproxy.exposition import compiled


def run(engine, text, cuts, recipe, pods):
    """The output and the counts of an engine, which is fed again where it needs pods."""
    pipeline = Pipeline(
        lambda space: general_lines.rendered(lines.LABELS.get(space, ())),
        recipe,
        pods=general_lines.pod_lookup(pods) if pods is not None else None,
        engine=engine,
    )
    output = fed(pipeline, text, cuts)
    return output, repr(pipeline), pipeline.dropped, dict(pipeline.enricher.seen)


def repeated_text(rng, limit):
    """Lines that come again and again, between them those of other families."""
    some = lines.random_text(rng, rng.randrange(2, 20), limit).split(b"\n")
    chosen = rng.choices(some, k=rng.randrange(1, 80))
    at = rng.randrange(len(chosen))
    chosen[at:at] = rng.choices(FAMILIES, k=rng.randrange(4))
    for at in range(len(chosen)):
        if rng.random() < 0.5:
            chosen[at] = chosen[at].replace(b"m{", rng.choice([b"up{", b"x_bucket{", b'm_"{']), 1)
    return b"\n".join(chosen) + rng.choice([b"", b"\n"])


FAMILIES = [
    b"# TYPE up gauge", b"# HELP x", b"# TYPE x histogram", b'# UNIT "m" s', b'# TYPE "u\\"" x', b" # HELP m_ x",
    b"#  TYPE\tx", b"# TYPE x_bucket", b"# TYPE x.", b"# EOF", b"# TYPE m:", b"# TYPE", b'# HELP ""',
]  # fmt: skip


def random_recipe(rng):
    """Options in combination, and pods where they may be."""
    setting, pods = general_lines.choices(rng)
    removed = rng.choice([set(), set(), {b"le"}, {b"a", b"id"}, {b"pod"}, {b"namespace"}])
    if not setting.prefixes and len(setting.names) > 1:
        removed -= set(setting.names)
    chosen = Selection(
        keep_metrics=rng.choice([(), (), ((Globs(("[mx]*",)),),)]),
        drop_metrics=rng.choice([(), (Globs(("u*", "x")),)]),
        namespaces=rng.choice([(), (Globs(("*a*", "shop", "")),)]),
        exclude_namespaces=rng.choice([Globs(()), Globs(("sh*",))]),
        cluster_samples=rng.random() < 0.7,
        drop_labels=frozenset(removed),
        strip_timestamps=rng.random() < 0.3,
    )
    recipe = Recipe(
        names=frozenset(rng.choice([(), lines.ADDED])),
        on_conflict=rng.choice(["keep", "overwrite"]),
        selection=rng.choice([Selection(), chosen, chosen, chosen]),
        info=rng.random() < 0.2,
        max_line=rng.choice([MAX_LINE, MAX_LINE, 60]),
        namespace_labels=setting,
        pods=pods is not None,
    )
    return recipe, pods


@pytest.mark.parametrize("seed", range(6))
def test_lines_that_come_again(seed):
    """Both engines give the same output, counts and namespaces, however the text is cut."""
    rng = random.Random(seed)
    for _ in range(100):
        recipe, pods = random_recipe(rng)
        text = repeated_text(rng, recipe.max_line)
        wanted = run("pure", text, (), recipe, pods)
        for cuts in ((), lines.random_cuts(rng, text, recipe.max_line)):
            assert run("compiled", text, cuts, recipe, pods) == wanted, (text, recipe)


class FailingError(RuntimeError):
    """A look-up that fails."""


def test_an_error_of_a_look_up():
    """It ends the piece, and no other. Nothing of the piece was taken."""
    calls = []

    def lookup(space):
        calls.append(space)
        if len(calls) == 2:
            raise FailingError
        return b',team="x"'

    pipeline = Pipeline(lookup, Recipe(), engine="compiled")
    output = pipeline.feed(b'm{namespace="a"} 1\nm{names')
    with pytest.raises(FailingError):
        pipeline.feed(b'pace="b"} 1\nm{namespace="a"} 2\n')
    output += pipeline.feed(b"") + pipeline.finish()
    assert output == (
        b'm{namespace="a",team="x"} 1\nm{namespace="b",team="x"} 1\nm{namespace="a",team="x"} 2\n'
    )
    assert (calls, pipeline.enricher.samples) == ([b"a", b"b", b"b"], 3)


def test_a_line_that_the_compiled_engine_misreads(monkeypatch):
    """If a line that it takes for no sample is one, the pure engine works on its whole block."""
    text = b'# TYPE m gauge\nm{namespace="web",a="1"} 1\nxyz{ 1\nm{namespace="web",a="2"} 1\n'
    recipe = Recipe(
        selection=Selection(drop_labels=frozenset({b"a"}), drop_metrics=(Globs(("up",)),))
    )
    wanted = run("pure", text * 3, (), recipe, None)
    assert run("compiled", text * 3, (), recipe, None) == wanted
    blocks = []
    monkeypatch.setattr(compiled, "NO_SAMPLES", re.compile(b"none"))
    monkeypatch.setattr(
        compiled.CompiledLines, "_pure", noted(compiled.CompiledLines._pure, blocks)
    )
    for cuts in ((), (5,), (15, 100, 150, 200)):
        assert run("compiled", text * 3, cuts, recipe, None) == wanted
    assert b"".join(blocks[:1]) == text * 3


def test_every_sample_would_be_read_once_more():
    """If the compiled engine took any sample for none, the pure one would see it."""
    rng = random.Random(1)
    text = b"\n".join([lines.random_text(rng, 400, MAX_LINE) for _ in range(40)])
    samples = [line for line in text.split(b"\n") if Sample.parse(line)]
    numbers = ["".join(each) for n in range(1, 6) for each in product("01.eE+-inf", repeat=n)]
    for number in (*numbers, "NaN", "-Infinity", "+iNf", "1" * 2000, "1e999", "." + "0" * 999):
        if re.fullmatch(NUMBER, number.encode()):
            samples += (b"m " + number.encode(), b'm{a="b"}%b ' % number.encode())
    assert len(samples) > 10_000
    assert not [line for line in samples if not kmproxy_engine.may_be_sample(line)]


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b" ", b"m x", b"m 1 2 3", b"m-a 1", b"1 1", b'm{a="b"} x', b'm{a="b"} 1}', b'"m" 1',
     b"}{ 1", b"m 1 #", b"m 1.1.1", b"m \xff", b"m 1\r", b'm{a="b"} 1_0', b"m{}", b"m 0x1", b'{a="b"} 1',
     b'{a="b", "c" = "d" ,} 1', b'{"a"="b"}1', b"{} 1", b'{"m} 1'],
)  # fmt: skip
def test_plain_garbage_is_not_read_once_more(line):
    """It costs little: an upstream may send much of it."""
    assert not kmproxy_engine.may_be_sample(line)


def noted(method, blocks):
    """A method whose argument is noted."""

    def call(self, block):
        blocks.append(block)
        return method(self, block)

    return call


def new_engine():
    """An engine by itself, with the default rules."""
    return kmproxy_engine.Engine(
        naming=[b"namespace"], prefixes=[], pods=False, overwrite=False, metrics=False,
        namespaces=False, drop=[], strip=False, tenant=False,
    )  # fmt: skip


def test_what_the_engine_refuses():
    """A span outside of the data, and a call while it reads."""
    engine = new_engine()

    class Host:
        def ask_labels(self, *_):
            engine.forget()

    with pytest.raises(RuntimeError, match="lready"):
        engine.read(b"", b'm{namespace="a"} 1\n', 0, 19, 0, Host())
    with pytest.raises(IndexError):
        engine.read(b"", b"m 1\n", 0, 5, 0, Host())


def test_nothing_is_left_of_an_exposition():
    """The memory is freed at once: there is no circle of references."""
    pipeline = Pipeline(lambda _: b',team="x"', Recipe(selection=ALL), engine="compiled")
    pipeline.feed(b'm{namespace="a"} 1\n')
    gone = weakref.ref(pipeline)
    gc.disable()
    try:
        del pipeline
        assert gone() is None
        assert not [each for each in gc.get_objects() if isinstance(each, compiled.CompiledLines)]
    finally:
        gc.enable()


ALL = Selection(drop_labels=frozenset({b"x"}), exclude_namespaces=Globs(("none",)))


def removing(room):
    """A pipeline that removes a label."""
    recipe = Recipe(selection=Selection(drop_labels=frozenset({b"x"})))
    return Pipeline(lambda _: b"", recipe, room=room, engine="compiled")


def test_series_that_differ_in_one_byte():
    """They are different ones, whatever the length of the label, and wherever the byte stands."""
    places = [(at, size - at) for size in range(40) for at in range(size + 1)]
    # One of these bytes differs from `a` in the lower half, the other one in the upper half.
    values = [b"a" * at + other + b"a" * rest for at, rest in places for other in (b"b", b"q")]
    values += [b"a" * size for size in range(1, 60)] + [b"m" * size + b"_" for size in range(50)]
    text = [b'm{a="%b",x="%d"} 1\n' % each for each in zip(values, count(), strict=False)]
    text += [b'%b{x="%d"} 1\n' % each for each in zip(values, count(), strict=False)]
    text += [b'm{%b="z",x="%d"} 1\n' % each for each in zip(values[1:], count(), strict=False)]
    pipeline = removing(SeriesRoom())
    assert pipeline.feed(b"".join(text)).count(b"\n") == len(text) == pipeline.selector.series
    again = [line.replace(b'x="', b'x="0') for line in text]
    assert pipeline.feed(b"".join(again)) == b""
    assert pipeline.dropped["merged"] == len(text)


def test_series_are_bounded(monkeypatch):
    """Over the bound the exposition ends with an error, so no series appears twice."""
    monkeypatch.setattr("kmproxy.exposition.series.MAX_SERIES", 200 * 10)
    text = [b'm{a="%d",x="1"} 1\n' % number for number in range(11)]
    pipeline = removing(SeriesRoom())
    assert pipeline.feed(b"".join(text[:10])) == b"".join(text[:10]).replace(b',x="1"', b"")
    assert pipeline.feed(text[0].replace(b'x="1"', b'x="2"')) == b""
    assert pipeline.dropped["merged"] == 1
    with pytest.raises(SeriesError, match="over 10 series"):
        pipeline.feed(text[0] + text[10])
    with pytest.raises(SeriesError, match="over 10 series"):
        pipeline.feed(b"")  # the lines that wait do not pass


def test_series_are_bounded_together(monkeypatch):
    """Over the total bound the largest exposition ends, and frees its memory."""
    monkeypatch.setattr("kmproxy.exposition.series.MAX_SERIES", 200 * 10)
    room = SeriesRoom()
    large, small, later = (removing(room) for _ in range(3))
    text = [b'm{a="%d"} 1\n' % number for number in range(20)]
    assert large.feed(b"".join(text[:7]))
    assert small.feed(b"".join(text[:5])) == b"".join(text[:5])
    with pytest.raises(SeriesError, match="over 6 series"):
        large.feed(text[0])
    small.close()
    assert later.feed(b"".join(text[:10])) == b"".join(text[:10])
    assert repr(room) == "<SeriesRoom 10 series of 1 expositions>"
