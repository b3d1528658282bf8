"""Linear time: no input costs much more CPU per byte than plain text does.

A table of worst inputs, each of 64 KiB and of 1 MiB, for every stage of the pipeline and
every expression of the grammar. The cost of plain text is measured beside it, fed in the same
way, so the machine's speed does not matter. `python -m tests.properties.test_linear` prints
the figures.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain

import pytest

from kmproxy.auth.tenant_filter import TenantFilter
from kmproxy.bench.payloads import kube_state_metrics
from kmproxy.config.expressions import parse_regex
from kmproxy.content_coding import GzipDecoder, GzipEncoder
from kmproxy.exposition import grammar
from kmproxy.exposition.engine import available
from kmproxy.exposition.enricher import Enricher
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.finder import (
    NAMESPACE,
    PLAIN_PAIRS,
    sample_finder,
    split_at,
    split_at_pairs,
)
from kmproxy.exposition.lines import portions
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from kmproxy.exposition.selector import Selector
from kmproxy.exposition.splitter import KeySplitter, PlainSplitter
from tests.support.engines import ENGINES

# Coverage would make the same lines slow, a million times.
pytestmark = pytest.mark.no_cover

TIMES = 20
"""Maximum cost per byte, in bytes of plain text: lines of 90 bytes, as kube-state-metrics'."""

TIMES_COMPILED = 12
"""The same for the compiled engine, in bytes of plain text on the compiled engine."""

TIMES_ASKED = 30
"""The same if each line has a new name, for each question about it to Python."""

NOISE = 2.5
"""Times these for what a busy machine adds; an expression that is not linear costs hundreds."""

SIZES = (1 << 16, 1 << 20)
SPACES = {f"shop-{number:02}": {"team": f"team-{number % 7}"} for number in range(20)}
TEXT = kube_state_metrics(SPACES)  # about 6 MB
PLAIN = {size: TEXT[: TEXT.index(b"\n", size - 200) + 1] for size in SIZES}
MAX_LINE = SIZES[1]


def over(*unit: bytes) -> Callable[[int], bytes]:
    """Repeats whole lines."""
    text = b"".join(unit)
    return lambda size: text * (size // len(text))


def within(head: bytes, unit: bytes, tail: bytes = b'"} 1\n') -> Callable[[int], bytes]:
    """One line with a repeated part, and its newline."""
    return lambda size: head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def numbered(line: bytes) -> Callable[[int], bytes]:
    """Lines with a different number each."""
    return lambda size: b"".join([line % n for n in range(size // (len(line % 10000)))])


def random_bytes(size: int) -> bytes:
    """Random bytes, mostly those that have a meaning in the format."""
    return bytes(random.Random(1).choices(b'n{}="",,\\ \t\n\n#1am', k=size))


WORST = {
    # one attempt after the other over the same bytes
    "starts in one line": within(b"m{", b'anamespace="",', b"\n"),
    "starts, none of them": within(b"m{", b'namespace="', b"\n"),
    "starts, each a namespace": within(b"m{", b'namespace="",', b"} 1\n"),
    "starts in values": within(b"m{", b'a="{namespace=",', b"} 1\n"),
    "starts in a value": within(b'm{a="', b"{namespace=", b'"} 1\n'),
    "starts, escaped": within(b'm{a="', b'{namespace=\\"', b'"} 1\n'),
    "starts and an end that is none": within(b'm{namespace="x"', b',xnamespace="y"', b"} x\n"),
    "starts, lines of 1 KiB": over(b"m{", b'anamespace="",' * 70, b"\n"),
    "starts, long values": over(b"m{", b'anamespace="%b",' % (b"x" * 90) * 9, b"\n"),
    "comments like ends": over(b'#namespace=""} 1\n'),
    "comments like samples": over(b'#{namespace=""} 1\n'),
    "comments behind pairs": over(b"m{", b'anamespace="",' * 10, b"} 1\n", b"# x\n" * 4),
    "comments, then none": lambda size: b'm{namespace="a"} 1\n' + b"#\n" * (size // 2 - 20) + b"x\n",
    "ends of lines in values": over(b'm{namespace="a",b="} 1"} 1\n'),
    "almost plain": over(b'm{namespace="a"}  1\n'),
    "almost a metric": over(b'm{namespace="a"} 1\n', b"m" * 400 + b"\n"),
    # repeated
    "pairs": within(b"m{", b'a="",', b"} 1\n"),
    "pairs without end": within(b"m{", b'a="",', b"\n"),
    "pairs, spaced": within(b"m{", b'a = "" , ', b"\n"),
    "names": within(b"", b"a", b"\n"),
    "digits": within(b'm{namespace="a"} ', b"1", b"x\n"),
    "digits and dots": within(b"m ", b"1.", b"\n"),
    "exemplars": within(b"m 1", b" # {} 1", b"\n"),
    "exemplars without end": within(b'm{namespace="a"} 1', b' # {a="b"} 1', b"x\n"),
    "braces": within(b"", b"{", b"\n"),
    "quotes": within(b"m{", b'"', b"\n"),
    "quoted names": within(b'{"m"', b',"a"="b"', b"} 1\n"),
    "a metric's name, last": within(b"{", b'a="",', b'"m"} 1\n'),
    "a metric's name, last, behind a namespace": within(b'{namespace="a"', b' "a"=""', b'"m"} 1\n'),
    "a metric's name, none": within(b'{namespace="a"', b',"a"=""', b"} 1\n"),
    "metrics' names": within(b'{namespace="a"', b',"m"', b"} 1\n"),
    "pairs without commas": within(b"m{", b'a=""', b"} 1\n"),
    "pairs without commas, blanks": within(b"m{", b'a="" \t', b'namespace="a"} 1\n'),
    "pairs without commas or end": within(b'{"m",namespace="a"', b'a=""', b"\n"),
    "pairs of namespaces without commas": within(b"{", b'namespace=""', b'"m"} 1\n'),
    "backslashes": within(b'm{namespace="', b"\\\\"),
    "backslashes and a quote": within(b'm{namespace="a",b="', b'\\"', b"\n"),
    "escaped namespaces": numbered(b'm{namespace="%d\\n"} 1\n'),
    "blanks": within(b"", b" ", b"\n"),
    "blanks before a value": within(b'm{namespace="a"}', b"\t", b"1\n"),
    "lines of blanks": over(b" " * 30 + b"\n"),
    # tiny lines
    "no bytes": over(b"\n"),
    "one byte": over(b"x\n"),
    "a blank": over(b" \n"),
    "tiny comments": over(b"#\n"),
    "tiny comments, spaced": over(b" #\n"),
    "tiny samples": over(b"a 1\n"),
    "tiny samples, odd": over(b"a\t1\n"),
    "tiny samples, none": over(b"a x\n"),
    "tiny lines of two kinds": over(b"a\t1\n", b"x\n"),
    "tiny lines of all kinds": over(b"a 1\n", b"\n", b" #\n", b"a x\n", b"{\n", b'{""}1\n'),
    "tiny names": over(b'{""}1\n'),
    "tiny metadata": over(b"# TYPE a\n"),
    "tiny namespaces": over(b'm{namespace="a"} 1\n'),
    "tiny namespaces, odd": over(b'm{namespace="a"}1\n'),
    "tiny namespaces, other each": numbered(b'm{namespace="%d"} 1\n'),
    "alike namespaces, other each": numbered(b'm{namespace="shop-%07d"} 1\n'),
    "tiny namespaces, every other line": over(b'm{namespace="a"} 1\n', b"x\n"),
    "tiny namespaces, quoted": over(b'{"m","namespace"="a"} 1\n'),
    "tiny namespaces, then a name": over(b'{namespace="a""m"}1\n'),
    "tiny namespaces, then no name": over(b'{namespace="a"}1\n'),
    "two namespaces": over(b'm{namespace="a",namespace="b"} 1\n'),
    "conflicts": over(b'm{namespace="shop-01",team="x"} 1\n'),
    "conflicts, odd": over(b'm{namespace="shop-01",team="x"}1\n'),
    "conflicts, the name behind": over(b'{namespace="shop-01" team="x" "team="}1\n'),
    "pods, other each": numbered(b'm{namespace="a",pod="%d"} 1\n'),
    "pods, unknown": over(b'm{namespace="a",pod="gone"} 1\n'),
    "pods, unknown, odd": over(b'm{pod="gone",namespace="a"}1\n'),
    "pods in one line": within(b'm{namespace="a"', b',pod="b"', b"} 1\n"),
    "pods and namespaces": within(b"m{", b'namespace="a",pod="b",', b"} 1\n"),
    "pods and namespaces, lines of 1 KiB": over(b"m{", b'namespace="a",pod="b",' * 45, b"x\n"),
    "pods, cut off": within(b'm{namespace="', b'",pod="', b"\n"),
    "pods, escaped": over(b'm{namespace="a",pod="\\\\"} 1\n'),
    "two labels": over(b'm{source="a",target="b"} 1\n'),
    "two labels, odd": over(b'm{source="a",target="b"}1\n'),
    "two labels, other each": numbered(b'm{source="%d",target="a"} 1\n'),
    "labels in one line": within(b"m{", b'source="a",target="b",', b"} 1\n"),
    "starts of labels": within(b"m{", b'asource="",', b"\n"),
    "shapes, other each": numbered(b'm{a%d="",source="shop-01",pod="p",namespace="a"} 1\n'),
    "shapes of other values": numbered(b'm{source="a",namespace="%d",a=""} 1\n'),
    "conflicts in one line": within(b'm{namespace="shop-01"', b',team="x"', b"} 1\n"),
    # limits
    "long namespaces": numbered(b'm{namespace="%070d"} 1\n'),
    "long metrics": numbered(b'm%01000d{a="b"} 1\n'),
    "a line of the limit": lambda size: b'm{namespace="a",b="' + b"x" * (size - 24) + b'"} 1\n',
    "lines at the limit of the splitter": over(b'm{namespace="a"', b',b="x"' * 10, b"} 1\n"),
    "lines over the limit of the splitter": over(b'm{namespace="a"', b',b="x"' * 11, b"} 1\n"),
    "no newline at all": lambda size: b'm{namespace="a",' * (size // 16),
    "anything": random_bytes,
}  # fmt: skip


RENDERED = {name.encode(): b',team="%b"' % row["team"].encode() for name, row in SPACES.items()}


def lookup(namespace: bytes) -> bytes:
    """The labels of twenty namespaces."""
    return RENDERED.get(namespace, b"")


LIST = NamespaceLabels((b"source", b"namespace"))
PREFIXES = NamespaceLabels((b"source", b"target"), (b"s_", b"t_"))


def pod_lookup(_: bytes, pod: bytes) -> bytes | None:
    """The labels of a pod, if it is known."""
    return b',workload="%b"' % pod if pod != b"gone" else None


def tenant(labels: NamespaceLabels | None = None) -> Callable[[Iterator[bytes]], None]:
    """A tenant that may see every other namespace."""

    def run(pieces: Iterator[bytes]) -> None:
        tenant_stream = TenantFilter(lambda _: True, max_line=MAX_LINE, namespace_labels=labels)
        steps = chain(map(tenant_stream.feed, pieces), (tenant_stream.finish() for _ in range(1)))
        for asked in steps:
            tenant_stream.decide({name: len(name) % 2 == 0 for name in asked})
            tenant_stream.take()

    return run


def general(**options: object) -> Callable[[Iterator[bytes]], None]:
    """An enricher with other namespace labels or pods."""
    recipe = Recipe(names=frozenset({b"team", b"workload"}), max_line=MAX_LINE, **options)  # type: ignore[arg-type]
    return filtered(lambda: Pipeline(lookup, recipe, pods=pod_lookup, engine="pure"))


def filtered(
    make: Callable[[], Enricher | Selector | Pipeline],
) -> Callable[[Iterator[bytes]], None]:
    """Feeds a stage, and finishes it, unless it refuses the text."""

    def run(pieces: Iterator[bytes]) -> None:
        stage = make()
        with suppress(RepeatedLabelError):
            for piece in pieces:
                stage.feed(piece)
            stage.finish()

    return run


def selector(**options: object) -> Callable[[Iterator[bytes]], None]:
    """A selector with a selection."""
    chosen = Selection(**options)  # type: ignore[arg-type]
    return filtered(lambda: Selector(chosen, max_line=MAX_LINE))


def pipeline(**options: object) -> Callable[[Iterator[bytes]], None]:
    """The pipeline with all stages but the tenant's."""
    chosen = Selection(namespaces=(Globs(("shop*", "a")),), strip_timestamps=True)
    recipe = Recipe(names=frozenset({b"team"}), selection=chosen, max_line=MAX_LINE, **options)  # type: ignore[arg-type]
    return filtered(lambda: Pipeline(lookup, recipe, pods=pod_lookup, engine="pure"))


def encoded(pieces: Iterator[bytes]) -> None:
    """Packs the bytes, and unpacks them in tiny pieces."""
    encoder = GzipEncoder()
    packed = b"".join([*map(encoder.feed, pieces), encoder.finish()])
    decoder = GzipDecoder()
    for at in range(0, len(packed), 1000):
        for _ in decoder.feed(packed[at : at + 1000]):
            pass
    decoder.finish()


NAMES = frozenset({b"team"})
STAGES: dict[str, Callable[[Iterator[bytes]], None]] = {
    "enricher": filtered(lambda: Enricher(lookup, names=NAMES)),
    "enricher, overwrite": filtered(lambda: Enricher(lookup, names=NAMES, on_conflict="overwrite")),
    "enricher, names not foretold": filtered(lambda: Enricher(lookup)),
    "selector, metrics": selector(drop_metrics=(parse_regex("kube_pod_c.*"),)),
    "selector, namespaces": selector(namespaces=(Globs(("shop*", "a")),), cluster_samples=False),
    "selector, timestamps": selector(strip_timestamps=True),
    "selector, labels": selector(drop_labels=frozenset({b"uid"})),
    "tenant": tenant(),
    "tenant, prefixes": tenant(PREFIXES),
    "pods": general(pods=True),
    "pods, overwrite": general(pods=True, on_conflict="overwrite"),
    "a list of labels": general(namespace_labels=LIST),
    "prefixes": general(namespace_labels=PREFIXES),
    "pipeline, pods": pipeline(pods=True, info=True),
    "pipeline, prefixes": pipeline(namespace_labels=PREFIXES, info=True),
    "pipeline": pipeline(),
    "pipeline, info": pipeline(info=True),
    "gzip": encoded,
}


def compiled(**options: object) -> Callable[[Iterator[bytes]], None]:
    """The compiled engine, which does all that a recipe asks for in one pass."""
    options = {"names": NAMES, "max_line": MAX_LINE} | options
    return filtered(
        lambda: Pipeline(lookup, Recipe(**options), pods=pod_lookup, engine="compiled")  # type: ignore[arg-type]
    )


CHOSEN = Selection(
    drop_metrics=(Globs(("kube_pod_c*",)),),
    namespaces=(Globs(("shop*", "a")),),
    drop_labels=frozenset({b"uid"}),
    strip_timestamps=True,
)
IN_ONE_PASS = {
    "compiled": compiled(),
    "compiled, overwrite": compiled(on_conflict="overwrite"),
    "compiled, metrics": compiled(selection=Selection(drop_metrics=CHOSEN.drop_metrics)),
    "compiled, namespaces": compiled(selection=Selection(namespaces=CHOSEN.namespaces)),
    "compiled, labels": compiled(selection=Selection(drop_labels=CHOSEN.drop_labels)),
    "compiled, pods": compiled(pods=True, on_conflict="overwrite"),
    "compiled, a list of labels": compiled(namespace_labels=LIST),
    "compiled, prefixes": compiled(namespace_labels=PREFIXES, on_conflict="overwrite"),
    "compiled, all": compiled(selection=CHOSEN, pods=True, info=True, on_conflict="overwrite"),
}

ASKED = {
    "escaped namespaces",
    "tiny namespaces, other each",
    "alike namespaces, other each",
    "pods, other each",
    "two labels, other each",
    "shapes of other values",
    "long namespaces",
}
"""The inputs with a new name in each line."""

QUESTIONS = {"compiled, namespaces": 2, "compiled, pods": 2, "compiled, all": 2}
"""How often these stages ask about a line. The others ask once."""


def most(stage: str, name: str) -> int:
    """The most that a byte of an input may cost, in bytes of plain text."""
    if stage not in IN_ONE_PASS:
        return TIMES
    return TIMES_ASKED * QUESTIONS.get(stage, 1) if name in ASKED else TIMES_COMPILED


def cut(text: bytes, size: int) -> Iterator[bytes]:
    """The text in pieces, as the server feeds them."""
    for at in range(0, len(text), size):
        yield from portions(text[at : at + size])


def nanoseconds(run: Callable[[], object], size: int, times: int) -> float:
    """CPU time per byte: the minimum of some runs."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best / size * 1e9


def ratio(
    run: Callable[[bytes], object],
    text: bytes,
    beside: Callable[[int], float],
    plain: float,
    limit: int = TIMES,
) -> float:
    """The cost of a byte of the text, in bytes of plain text.

    `beside` measures the nanoseconds of a byte of plain text in some runs, and `plain` are those
    measured before. A ratio near the limit is measured again in turns, because the machine may
    have been busy.
    """
    run(text[: text.find(b"\n") + 1])  # what is compiled when it is first needed
    cost = nanoseconds(lambda: run(text), len(text), 1) / plain
    for _ in range(7):
        if cost < limit * 0.8:
            break
        plain = beside(2)
        cost = min(cost, nanoseconds(lambda: run(text), len(text), 2) / plain)
    return cost


@pytest.fixture(autouse=True, scope="module")
def own_objects():
    """Python's garbage collector passes over the objects of the other tests, which are many."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def all_costs(stage: str, size: int) -> tuple[float, dict[str, float]]:
    """The cost of plain text in nanoseconds a byte, and of each input in bytes of plain text.

    The compiled engine is compared with itself without an option: pods are asked for in Python.
    """
    run = (STAGES | IN_ONE_PASS)[stage]
    base = IN_ONE_PASS["compiled"] if stage in IN_ONE_PASS else run

    def beside(times: int) -> float:
        return nanoseconds(lambda: base(cut(PLAIN[size], 1 << 16)), len(PLAIN[size]), times)

    plain = beside(5)
    return plain, {
        name: round(
            ratio(
                lambda text: run(cut(text, 1 << 16)), make(size), beside, plain, most(stage, name)
            ),
            1,
        )
        for name, make in WORST.items()
    }


BOTH = [
    *STAGES,
    *(
        pytest.param(stage, marks=ENGINES[1].marks, id=stage.replace(", ", "-"))
        for stage in IN_ONE_PASS
    ),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", BOTH)
def test_no_stage_takes_long(stage, size):
    """A byte of the worst input costs as much as some bytes of plain text, at both sizes."""
    costs = all_costs(stage, size)[1]
    dearest = sorted(costs.items(), key=lambda item: -item[1])[:5]
    shown = ", ".join(f"{name} {cost}" for name, cost in dearest)
    sys.stdout.write(f"\n{stage}, {size} bytes: {shown} times plain text\n")
    assert {name: cost for name, cost in costs.items() if cost > most(stage, name) * NOISE} == {}


@pytest.mark.parametrize("step", [5, 64, 1000])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "gzip"])
def test_small_pieces_take_no_longer(stage, step):
    """Small pieces cost no more: no line is copied again for each piece."""
    run, size = STAGES[stage], SIZES[0] * 4
    text = PLAIN[SIZES[1]][:size]

    def beside(times: int) -> float:
        return nanoseconds(lambda: run(cut(text, step)), len(text), times)

    plain = beside(3)
    names = (
        "starts in one line",
        "a line of the limit",
        "no newline at all",
        "backslashes",
        "blanks",
    )
    costs = {
        name: ratio(lambda text: run(cut(text, step)), WORST[name](size), beside, plain)
        for name in names
    }
    assert {name: cost for name, cost in costs.items() if cost > TIMES * NOISE} == {}


def pairs(expression: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """The functions for lists of proven pairs, called with the pairs of each sample."""

    def run(text: bytes) -> None:
        for line in text.split(b"\n"):
            if sample := grammar.Sample.parse(line):
                expression(line[line.find(b"{") + 1 : sample.pairs_end])

    return run


SPACES_OF_A_LIST = frozenset(LIST.names)
FINDER = sample_finder(SPACES_OF_A_LIST)
SPLIT_AT = NAMESPACE.without(NAMES)
EXPRESSIONS = {
    "PAIR.finditer": pairs(lambda text: sum(1 for _ in grammar.PAIR.finditer(text))),
    "pair_parts": pairs(grammar.pair_parts),
    "passing": NAMESPACE.passing.match,
    "plain": lambda text: NAMESPACE.plain.split(grammar.by_lines(text)),
    "any_spelling": lambda text: split_at(NAMESPACE.any_spelling, grammar.by_lines(text)),
    "without": lambda text: split_at(SPLIT_AT, grammar.by_lines(text)),
    "count_kinds": NAMESPACE.count_kinds,
    "lines": lambda text: NAMESPACE.lines.findall(grammar.by_lines(text)),
    "PlainSplitter": lambda text: PlainSplitter(NAMES).split(text),
    "KeySplitter, pods": lambda text: KeySplitter(NAMES, frozenset({b"namespace"}), pods=True).split(text),
    "KeySplitter, a list": lambda text: KeySplitter(NAMES, SPACES_OF_A_LIST).split(text),
    "PLAIN_PAIRS": lambda text: PLAIN_PAIRS.split(grammar.by_lines(text)),
    "split_at_pairs": lambda text: split_at_pairs(grammar.by_lines(text)),
    "passing, a list": FINDER.passing.match,
    "lines, a list": lambda text: FINDER.lines.findall(grammar.by_lines(text)),
    "any_spelling, a list": lambda text: split_at(FINDER.any_spelling, grammar.by_lines(text)),
    "plain, a list": lambda text: FINDER.plain.split(grammar.by_lines(text)),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_expression_takes_long(expression, size):
    """No expression costs more, on any input, than the engine costs on plain text at least."""
    run = EXPRESSIONS[expression]
    plain = max(7.0, nanoseconds(lambda: run(PLAIN[size]), len(PLAIN[size]), 3))
    whole = {name: make(size) for name, make in WORST.items()}
    costs = {
        name: round(nanoseconds(lambda: run(text), len(text), 2) / plain, 1)  # noqa: B023
        for name, text in whole.items()
        if text[-1:] == b"\n"
    }
    assert {name: cost for name, cost in costs.items() if cost > TIMES * NOISE} == {}


@pytest.mark.parametrize(
    "glob", ["*a" * 100 + "b", "*?" * 100, "*[a-z]" * 40 + "B", "*" * 250 + "b"]
)
def test_no_glob_takes_long(glob):
    """A glob on the longest name costs the same when pieces of it almost match."""
    globs = Globs.of_query([glob])
    cost = {
        size: nanoseconds(lambda: globs.match("a" * size), size, 5)  # noqa: B023 - called at once
        for size in (64, 1024)
    }
    assert cost[1024] < cost[64] * 20


def table() -> None:
    """Prints the cost per byte, by input and stage, in bytes of plain text."""
    for stage in STAGES | (IN_ONE_PASS if "compiled" in available() else {}):
        for size in SIZES:
            plain, costs = all_costs(stage, size)
            sys.stdout.write(f"\n{stage}, {size} bytes; plain text {plain:.1f} ns a byte\n")
            sys.stdout.writelines(f"  {cost:6.1f}  {name}\n" for name, cost in costs.items())


if __name__ == "__main__":
    table()
