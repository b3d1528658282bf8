"""What an engine does where something fails: look-ups, lists of pods, long names, a second use."""

from __future__ import annotations

import gc
import sys

import pytest

from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Globs, Selection
from kmproxy.exposition.series import SeriesRoom
from tests.support.engines import ENGINES, fed

LONG = 500_000
"""Bytes of a long part: a line has room for two."""


@pytest.mark.parametrize(
    "line",
    [
        b'm{namespace="LONG"} 1',
        b'm{namespace="LONG",pod="p"} 1',
        b'm{namespace="shop",pod="LONG"} 1',
        b'm{namespace="LONG",pod="LONG"} 1',
        b'm{LONG="x",namespace="shop"} 1',
        b'm{"LONG"="LONG",namespace="shop"} 1',
        b'm{le="LONG",namespace="shop"} 1',
        b'LONG{namespace="shop"} 1',
        b'{"LONG",namespace="shop"} 1',
        b"# TYPE LONG gauge",
        b'# HELP "LONG" x',
        b'm{namespace="shop"} LONG',
        b"LONG",
        b'"LONG',
        b"#LONG",
    ],
)
@pytest.mark.parametrize("unit", [b"x", b"\\\\", b"1"])
def test_long_parts(engine, line, unit):
    """A part of half a megabyte, wherever it stands, is a part like others."""
    text = line.replace(b"LONG", unit * (LONG // len(unit))) + b"\n"
    chosen = Selection(
        drop_metrics=(Globs(("none*",)),),
        exclude_namespaces=Globs(("none*",)),
        drop_labels=frozenset({b"le"}),
        strip_timestamps=True,
    )
    for options in ({}, {"pods": True, "selection": chosen, "info": True}):
        recipe = Recipe(on_conflict="overwrite", **options)
        made = Pipeline(
            lambda name: b',team="x"' if name == b"shop" else b"",
            recipe,
            pods=lambda *_: b"",
            engine=engine,
        )
        output = fed(made, text, 65536)
        assert len(output) > len(text) - LONG * (b'le="' in line and bool(options)) - 100
        found = made.enricher
        assert found.samples + found.unparsed == (not line.startswith(b"#"))


def test_a_look_up_that_fails(engine):
    """Its error is the caller's. No line is lost or counted twice if the caller goes on."""
    answers = {b"a": [b',team="a"'], b"b": [ValueError("not now"), b',team="b"']}

    def lookup(namespace):
        if isinstance(answer := answers[namespace].pop(0), Exception):
            raise answer
        return answer

    made = Pipeline(lookup, Recipe(), engine=engine)
    with pytest.raises(ValueError, match="not now"):
        made.feed(b'm{namespace="a"} 1\nm{namespace="b"} 1\nm{namespace="a"} 2\n')
    assert made.feed(b"") + made.finish() == (
        b'm{namespace="a",team="a"} 1\nm{namespace="b",team="b"} 1\nm{namespace="a",team="a"} 2\n'
    )


TEXT = (
    b'# TYPE f counter\nf_total{namespace="a",pod="p1"} 1\nf{namespace="a",pod="p2",id="1"} 2\n'
    b'f{namespace="b",pod="p3",id="2"} 3\n# TYPE g counter\ng{namespace="b",pod="p1"} 3\n'
    b'h{namespace="b",pod="p9"} 3\nf_total{namespace="c",pod="q"} 1\nf{pod="p4",namespace="a"} 9'
)


@pytest.mark.parametrize("cut", [1, 7, 30, 1000])
def test_the_list_of_pods_is_needed_at_any_pod(engine, cut):
    """However often, and with which options: the same output and the same counts."""
    chosen = Selection(
        drop_labels=frozenset({b"id"}), keep_metrics=((Globs(("f*", "g")),),), strip_timestamps=True
    )
    recipe = Recipe(pods=True, info=True, selection=chosen)
    outcomes = set()
    for at in range(7):
        for times in (1, 3):
            left, turn = times, 0

            def lookup(_, pod, at=at):
                nonlocal left, turn
                if turn == at and left:
                    left -= 1
                    raise PodsNeededError
                turn += 1
                return None if pod == b"q" else b',w="%b"' % pod

            made = Pipeline(lambda name: b',team="%b"' % name, recipe, pods=lookup, engine=engine)
            pieces = [TEXT[start : start + cut] for start in range(0, len(TEXT), cut)]
            output = b""
            for piece in [*pieces, None]:
                waiting = piece
                while True:
                    try:
                        output += made.finish() if waiting is None else made.feed(waiting)
                        break
                    except PodsNeededError:
                        waiting = None if waiting is None else b""
            outcomes.add((output, made.enricher.counts(), str(made.dropped)))
    ((output, counts, dropped),) = outcomes
    assert output.startswith(b'# TYPE f counter\nf_total{namespace="a",team="a",pod="p1",w="p1"} 1')
    assert counts[0] == 5
    assert "'metric': 1" in dropped
    assert "'unknown_pod': 1" in dropped


@pytest.mark.parametrize("error", [PodsNeededError, ValueError])
def test_series_before_a_look_up_that_fails(engine, error):
    """They are counted once, and take room that other expositions share."""
    failures = [error()]

    def lookup(*_):
        if failures:
            raise failures.pop()
        return b""

    room = SeriesRoom()
    chosen = Selection(drop_labels=frozenset({b"le"}))
    made = Pipeline(
        lambda _: b"", Recipe(pods=True, selection=chosen), pods=lookup, room=room, engine=engine
    )
    text = b"".join(b'm{id="%d"} 1\n' % number for number in range(100))
    with pytest.raises(error):
        made.feed(text + b'm{namespace="a",pod="p"} 1\n' + text)
    assert made.selector.series >= 101
    assert repr(room) == f"<SeriesRoom {made.selector.series} series of 1 expositions>"
    made.feed(b"m 1\n")
    assert made.selector.series == 102
    assert made.dropped["merged"] == 0
    made.close()
    assert repr(room) == "<SeriesRoom 0 series of 0 expositions>"


def test_a_look_up_that_feeds_its_own_pipeline(engine):
    """It gets an error, or the inner lines are read by themselves. Nothing is corrupted."""
    made = Pipeline(lambda _: made.feed(b'x{namespace="q"} 1\n'), Recipe(), engine=engine)
    with pytest.raises((RuntimeError, KeyError, RecursionError)):
        made.feed(b'm{namespace="a"} 1\nm 2\n')


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_pipeline_is_freed_at_once(engine):
    """Nothing of the compiled engine refers to itself, as the collector could not free it."""
    gc.collect()
    gc.disable()
    try:
        made = Pipeline(
            lambda _: b',team="x"',
            Recipe(pods=True, selection=Selection(drop_labels=frozenset({b"le"}))),
            pods=lambda *_: b"",
            engine=engine,
        )
        fed(made, b'm{namespace="a",pod="p",le="1"} 1\n')
        stage = made._lines
        made.close()
        del made
        assert sys.getrefcount(stage) == 2  # `stage`, and the argument
    finally:
        gc.enable()
