"""Tenants where other labels name the namespaces of a sample."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from kmproxy.auth.tenant_filter import TenantFilter
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.namespace_labels import NamespaceLabels
from tests.support import general_lines, lines, reference

MINE = {"payments", "web"}
LIST = NamespaceLabels((b"exported_namespace", b"namespace"))
PREFIXES = NamespaceLabels((b"source", b"target"), (b"s_", b"t_"))


def narrowed(text, setting, cuts=(), *, wanted=lambda _: True, limit=MAX_LINE):
    """What passes of the pieces between the cuts, what was asked, and what was dropped."""
    tenant_stream = TenantFilter(wanted, max_line=limit, namespace_labels=setting)
    asked, output = set(), []
    for start, end in pairwise([0, *cuts, len(text), None]):
        step = tenant_stream.finish() if end is None else tenant_stream.feed(text[start:end])
        asked |= step
        tenant_stream.decide({namespace: namespace in MINE for namespace in step})
        output.append(tenant_stream.take())
    return b"".join(output), asked, tenant_stream.dropped


def is_sample(line):
    """Whether a line is neither blank nor a comment."""
    return line.strip(b" \t")[:1] not in {b"", b"#"}


def passes(line, setting, limit):
    """Whether the plain reading says that each namespace of a sample is the tenant's."""
    try:
        spaces = reference.Spaces(setting.names, setting.prefixes).named(reference.Line(line))
    except reference.NotUnderstood:
        return False
    named = {pair[1].decode(errors="replace") for pair, _ in spaces}
    return len(line) <= limit and bool(named) and named <= MINE


@pytest.mark.parametrize(
    ("setting", "line", "dropped"),
    [
        (LIST, b'm{exported_namespace="web"} 1', None),
        (LIST, b'm{namespace="web"} 1', None),
        (LIST, b'm{exported_namespace="",namespace="web"} 1', None),
        (LIST, b'm{exported_namespace="web",namespace="other"} 1', None),
        (LIST, b'm{exported_namespace="other",namespace="web"} 1', "tenant"),
        (LIST, b'm{exported_namespace="",namespace=""} 1', "tenant"),
        (LIST, b'm{exported_namespace="web",exported_namespace="web"} 1', "unparsed"),
        (LIST, b'm{exported_namespace="web",namespace="web",namespace="web"} 1', "unparsed"),
        (LIST, b"m 1", "tenant"),
        (PREFIXES, b'm{source="web",target="payments"} 1', None),
        (PREFIXES, b'{ "target"="payments", "m", source = "web" } 1', None),
        (PREFIXES, b'm{source="web"} 1', None),
        (PREFIXES, b'm{source="web",target=""} 1', None),
        (PREFIXES, b'm{source="web",target="other"} 1', "tenant"),
        (PREFIXES, b'm{source="other",target="web"} 1', "tenant"),
        (PREFIXES, b'm{source="web",target="no namespace"} 1', "tenant"),
        (PREFIXES, b'm{source="bare",target="web"} 1', "namespace"),
        (PREFIXES, b'm{source="bare",target="other"} 1', "tenant"),
        (PREFIXES, b'm{namespace="web"} 1', "tenant"),
        (PREFIXES, b'm{source="web",target="web" 1', "unparsed"),
    ],
)
def test_every_namespace_of_a_sample_is_decided(setting, line, dropped, monkeypatch):
    """A sample passes only if the tenant sees, and the query wants, all that it names."""
    monkeypatch.setitem(globals(), "MINE", {"payments", "web", "bare"})
    for cuts in ((), range(len(line))):
        wanted = {"wanted": lambda name: name != "bare"}
        output, _, counts = narrowed(line + b"\n", setting, cuts, **wanted)
        assert output == (b"" if dropped else line + b"\n")
        assert {reason for reason, count in counts.items() if count} == {dropped} - {None}


def test_what_is_hidden_does_not_depend_on_the_query():
    """The counts are the same whether or not a query matches a namespace that is not seen."""
    text = b'm{source="web",target="other"} 1\nm{source="hidden",target="other"} 1\n'
    counts = [
        narrowed(text, PREFIXES, wanted=lambda name, words=words: name in words)[1:]
        for words in ({"web"}, {"web", "other"}, {"web", "other", "hidden"})
    ]
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("seed", range(8))
def test_as_a_plain_reading_says(seed):
    """Of odd and broken lines those samples pass that are the tenant's, however they are cut."""
    rng = random.Random(seed)
    passed = 0
    for _ in range(60):
        limit = rng.choice(lines.LIMITS)
        text = lines.random_text(rng, 40, limit)
        setting = rng.choice([*general_lines.SETTINGS.values()])
        expected = [
            line for line in text.split(b"\n") if is_sample(line) and passes(line, setting, limit)
        ]
        whole = narrowed(text, setting, limit=limit)
        assert list(filter(is_sample, whole[0].split(b"\n"))) == expected
        assert narrowed(text, setting, lines.random_cuts(rng, text, limit), limit=limit) == whole
        passed += len(expected)
    assert passed > 50
