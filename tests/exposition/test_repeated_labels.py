"""Samples that repeat labels that are overwritten: each pair gets the new value, up to a bound."""

from __future__ import annotations

import random

import pytest

from kmproxy.exposition.errors import MAX_REPEATS, RepeatedLabelError
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Selection
from tests.support import reference
from tests.support.engines import fed
from tests.support.general_lines import rendered

WIDE = b'"' + b"w" * 1000 + b'"'
LABELS = {b"a": [(b"team", WIDE), (b"tier", b'"gold"')], b"b": [(b"team", b'"b"')], b"none": []}
MANY = [(b"l%d" % number, b'"x"') for number in range(200)]
PODS = {(b"a", b"p"): [(b"workload", WIDE), (b"team", b'"of the pod"')]}
PREFIXES = NamespaceLabels((b"source", b"target"), (b"source_", b"target_"))
LIST = NamespaceLabels((b"exported_namespace", b"namespace"))

FORMS = {
    "plain, behind": (b'm{namespace="a",%b} 1', {}),
    "plain, before": (b'm{%b,namespace="a"} 1 2', {}),
    "on both sides": (b'm{team="",namespace="a",%b} 1', {}),
    "a backslash": (b'm{x="\\\\",namespace="a",%b} 1', {}),
    "blanks": (b'  m { namespace = "a" , %b , } 1 # {team="x"} 1', {}),
    "the name in quotes": (b'{namespace="a",%b,"m"} 1', {}),
    "no label but these": (b'm{namespace="a",%b,x="1"} 1', {"names": frozenset({b"team"})}),
    "a pod": (b'm{namespace="a",pod="p",%b} 1', {"pods": True}),
    "a pod, a backslash": (b'm{x="\\\\",namespace="a",%b,pod="p"} 1', {"pods": True}),
    "prefixes": (
        b'm{source="a",target="b",source_team="",%b} 1',
        {"namespace_labels": PREFIXES},
    ),
    "a list": (b'm{namespace="b",exported_namespace="a",%b} 1', {"namespace_labels": LIST}),
    "timestamps off": (b'm{namespace="a",%b} 1 2', {"selection": Selection(strip_timestamps=True)}),
}
"""A sample with a place for repeated pairs, and options."""


def pipeline(engine, labels=LABELS, *, on_conflict="overwrite", **options):
    """A pipeline that overwrites."""
    return Pipeline(
        lambda space: rendered(labels.get(space, ())),
        Recipe(on_conflict=on_conflict, **options),
        pods=lambda *key: rendered(PODS[key]),
        engine=engine,
    )


def plainly(text, labels=LABELS, **options):
    """The reference's reading: the output, or the label and the metric that are refused."""
    setting = options.get("namespace_labels", NamespaceLabels())
    spaces = reference.Spaces(setting.names, setting.prefixes)
    pods = PODS if options.get("pods") else None
    if "selection" in options:
        text = text.removesuffix(b" 2\n") + b"\n"
    try:
        return reference.enrich(text, labels, overwrite=True, spaces=spaces, pods=pods).output
    except reference.RepeatedLabel as error:
        return error.args


def read(engine, text, cut=None, labels=LABELS, **options):
    """An engine's reading, in the same form."""
    try:
        return fed(pipeline(engine, labels, **options), text, cut)
    except RepeatedLabelError as error:
        return error.label, error.metric


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", [b'team=""', b'"team"="x"', b'team="",tier=""'])
def test_the_limit(engine, form, pairs):
    """Up to the limit each pair gets the new value. Over it the exposition ends with an error."""
    line, options = FORMS[form]
    seen = set()
    for count in range(1, 2 * MAX_REPEATS):
        several = b",".join([pairs] * count)
        if form == "prefixes":
            several = several.replace(b"team", b"target_team").replace(b"tier", b"source_tier")
        text = line % several + b"\n"
        wanted = plainly(text, **options)
        assert read(engine, text, **options) == wanted
        assert read(engine, text, 7, **options) == wanted
        seen.add(type(wanted))
    assert seen == {bytes, tuple}


def test_the_limit_is_for_all_labels_of_a_sample_together(engine):
    """It counts the pairs that repeat a label, not the first pair of each."""
    names = [name for name, _ in MANY] * 2
    for count, refused in ((200 + MAX_REPEATS, False), (201 + MAX_REPEATS, True)):
        pairs = b",".join([b'%b="y"' % name for name in names[:count]])
        text = b'm{namespace="a",%b} 1\n' % pairs
        wanted = plainly(text, {b"a": MANY})
        assert read(engine, text, labels={b"a": MANY}) == wanted
        assert (wanted == (b"l%d" % MAX_REPEATS, b"m")) == refused


@pytest.mark.parametrize("seed", range(4))
def test_random_repeats(engine, seed):
    """The engines and the reference agree on samples near the limit, between others."""
    rng = random.Random(seed)
    refusals = 0
    for _ in range(150):
        texts = []
        for _ in range(rng.randrange(1, 4)):
            names = rng.choices([b"team", b'"team"', b"tier", b"x"], k=rng.randrange(18))
            comma = rng.choice([b",", b" , "])
            pairs = [b'%b="%b"' % (name, rng.choice([b"", b"\\n", b"v"])) for name in names]
            at = rng.randrange(len(pairs) + 1)
            pairs.insert(at, b'namespace="%b"' % rng.choice([*LABELS]))
            texts.append(b"m%d{%b} 1\n" % (rng.randrange(3), comma.join(pairs)))
        # An engine may meet the lines of one block in another order.
        wanted = [plainly(text) for text in texts]
        refused = {each for each in wanted if isinstance(each, tuple)}
        got = read(engine, b"".join(texts), rng.choice([None, 1, 50]))
        assert got in refused if refused else got == b"".join(wanted)
        refusals += bool(refused)
    assert 20 < refusals < 130


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (b'm{namespace="a",%b} 1\n', {"on_conflict": "keep"}),
        (b'm{namespace="none",%b} 1\n', {}),
        (b'm{namespace="",%b} 1\n', {}),
        (b'm{namespace="a",namespace="a",%b} 1\n', {}),
        (b'm{namespace="a",%b} x\n', {}),
    ],
)
def test_labels_that_are_not_overwritten_may_repeat(engine, line, options):
    """No pair gets a new value here, so the line cannot grow."""
    text = line % (b'team="",' * 1000)
    output = read(engine, text, **options)
    assert len(output) < len(text) + 30
    assert output.count(b'team=""') == 1000


def test_labels_that_are_taken_off_do_not_count(engine):
    """A label that is dropped before is added once, and grows the line by its length."""
    dropped = Selection(drop_labels=frozenset({b"team"}))
    text = b'm{namespace="a",' + b'team="",' * 1000 + b"} 1\n"
    output = read(engine, text, selection=dropped)
    assert output == b'm{namespace="a",team=%b,tier="gold",} 1\n' % WIDE


def test_the_exposition_has_ended(engine):
    """No further line passes. The message names the label, the details the metric."""
    made = pipeline(engine)
    assert made.feed(b'm{namespace="b"} 1\n') == b'm{namespace="b",team="b"} 1\n'
    text = b'my_metric{namespace="a",' + b'team="",' * 20 + b"} 1\n"
    for piece in (text, b"", b"m 1\n"):
        with pytest.raises(RepeatedLabelError, match=r"the label 'team'.*--drop-metric$") as raised:
            made.feed(piece)
        assert raised.value.details.endswith("; the metric is 'my_metric'")
    with pytest.raises(RepeatedLabelError):
        made.finish()


def test_names_in_the_message(engine):
    """They are shortened, and in one line."""
    text = b'{"%b\\n",namespace="a",%b} 1\n' % (b"\xff\xe2\x80\xa8" * 100, b'team="",' * 20)
    with pytest.raises(RepeatedLabelError) as raised:
        pipeline(engine).feed(text)
    assert raised.value.metric.endswith(b"\n")
    assert raised.value.details.isascii()
    assert raised.value.details.isprintable()
    assert len(raised.value.details) < 1000


def test_a_line_of_a_megabyte(engine):
    """It would become 130 MB. The error comes before that."""
    text = b'm{namespace="a",' + b'team="",' * 131_000 + b"} 1\n"
    assert read(engine, text) == (b"team", b"m")
