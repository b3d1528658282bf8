"""The tenant filter on the compiled engine, beside the one on the pure engine."""

import random
import re
from itertools import pairwise, permutations

import pytest

from kmproxy.auth.tenant import tenant_filter
from kmproxy.exposition.engine import available
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.namespace_labels import NamespaceLabels
from tests.support import general_lines, lines
from tests.support.tenant_text import EXPOSITION, SEEN

if "compiled" not in available():
    pytest.skip("kmproxy-engine is not installed: make engine builds it", allow_module_level=True)

from kmproxy.auth import compiled_filter

MINE = {"payments", "web"}


def narrowed(engine, text, cuts=(), *, setting=None, wanted=lambda _: True, limit=MAX_LINE):
    """The passed bytes, the names asked for, and the drops of a filter on an engine."""
    made = tenant_filter(wanted, max_line=limit, namespace_labels=setting, engine=engine)
    asked, output = set(), []
    bounds = [0, *cuts, len(text)]
    pieces = [lambda a=a, b=b: made.feed(text[a:b]) for a, b in pairwise(bounds)]
    for step in (*pieces, made.finish):
        namespaces = step()
        asked |= namespaces
        made.decide({namespace: namespace in MINE for namespace in namespaces})
        output.append(made.take())
    return b"".join(output), asked, made.dropped


def test_what_is_seen():
    """The lines of the tenant's namespaces, metadata and blank lines."""
    assert narrowed("compiled", EXPOSITION * 5)[0] == SEEN * 5


@pytest.mark.parametrize("seed", range(4))
def test_both_filters_agree(seed):
    """On random text whose lines come again: what passes, what is asked for, what is counted."""
    rng = random.Random(seed)
    passed = 0
    for _ in range(120):
        limit = rng.choice([MAX_LINE, MAX_LINE, 60])
        some = lines.random_text(rng, rng.randrange(2, 30), limit).split(b"\n")
        text = b"\n".join(rng.choices([*some, b"# EOF", b" # EOF", b"# TYPE m x"], k=60))
        options = {
            "setting": rng.choice([None, None, *general_lines.SETTINGS.values()]),
            "wanted": rng.choice([lambda _: True, lambda name: name != "web"]),
            "limit": limit,
        }
        wanted = narrowed("pure", text, **options)
        passed += len(wanted[0])
        for cuts in ((), lines.random_cuts(rng, text, limit)):
            passes, asked, dropped = narrowed("compiled", text, cuts, **options)
            assert (passes, dropped) == (wanted[0], wanted[2]), (text, options)
            # Beside a name that no namespace can have, the other ones are asked for, too.
            assert asked >= wanted[1]
    assert passed > 10_000


def test_nothing_undecided_passes():
    """Without a decision `take` fails, and nothing is lost. A changed decision holds at once."""
    made = tenant_filter(lambda _: True, max_line=MAX_LINE, engine="compiled")
    line = b'm{namespace="web"} 1\n'
    assert made.feed(line * 3) == {"web"}
    with pytest.raises(KeyError):
        made.take()
    made.decide({"web": True})
    assert made.take() == line * 3
    assert made.feed(line) == set()
    made.decide({"web": False})
    assert made.take() == b""
    assert made.dropped == {"namespace": 0, "tenant": 1, "unparsed": 0}


def test_an_undecided_namespace_is_asked_for_once_in_a_piece(monkeypatch):
    """Not in each line, as a piece may have thousands."""
    asked = []
    ask = compiled_filter.CompiledTenantFilter.ask_verdict
    monkeypatch.setattr(
        compiled_filter.CompiledTenantFilter,
        "ask_verdict",
        lambda self, name: asked.append(name) or ask(self, name),
    )
    made = tenant_filter(lambda _: True, max_line=MAX_LINE, engine="compiled")
    assert made.feed(b'm{namespace="web"} 1\n' * 100) == {"web"}
    assert asked == [b"web"]
    made.decide({"web": True})
    assert made.take().count(b"\n") == 100
    assert asked == [b"web"] * 2


def test_a_line_that_the_compiled_engine_misreads(monkeypatch):
    """From then on the lines are read as the pure engine reads them."""
    monkeypatch.setattr(compiled_filter, "NO_SAMPLES", re.compile(b"none"))
    for cuts in ((), (100, 300), range(0, 900, 50)):
        assert narrowed("compiled", EXPOSITION * 2, cuts) == narrowed("pure", EXPOSITION * 2)


@pytest.mark.parametrize("engine", ["pure", "compiled"])
@pytest.mark.parametrize("spaces", list(permutations(["web", "payments", "hidden"], 2)))
def test_the_strictest_verdict_holds(engine, spaces):
    """Of several namespaces of a sample one hidden or unwanted is enough, wherever it stands."""
    line = b'm{source="%b",target="%b"} 1\n' % tuple(map(str.encode, spaces))
    setting = NamespaceLabels((b"source", b"target"), (b"s_", b"t_"))
    passed, _, dropped = narrowed(
        engine, line * 3, setting=setting, wanted=lambda name: name != "payments"
    )
    assert passed == b""
    reason = "tenant" if "hidden" in spaces else "namespace"
    assert dropped == {"namespace": 0, "tenant": 0, "unparsed": 0} | {reason: 3}
