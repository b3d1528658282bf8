"""The stages together: select, enrich, and the info metric at the end."""

from __future__ import annotations

import pytest

from kmproxy.config import LabelConfig
from kmproxy.pipeline import Pipeline
from kmproxy.selection import Globs, Selection

HELP = (
    b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.\n"
    b"# TYPE kube_namespace_labels gauge\n"
)
LABELS = {b"a": b',team="x",tier="1"', b"b": b""}


def run(text, cut=None, selection=None, **options):
    """What a pipeline makes of a text, whole or in pieces."""
    pipeline = Pipeline(
        lambda namespace: LABELS.get(namespace, b""),
        LabelConfig(),
        selection or Selection(),
        max_line=1 << 20,
        **options,
    )
    step = cut or max(len(text), 1)
    output = b"".join(pipeline.feed(text[at : at + step]) for at in range(0, len(text), step))
    return output + pipeline.finish()


def test_what_is_not_asked_for_is_not_there():
    """Without a selection and the info metric only the enricher works."""
    pipeline = Pipeline(dict.get, LabelConfig(), Selection(), max_line=10)
    assert pipeline.selector is None
    assert pipeline._info is None


INFO = (
    HELP
    + b'kube_namespace_labels{namespace="a",label_team="x",label_tier="1"} 1\n'
    + b'kube_namespace_labels{namespace="b"} 1\n'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'm{namespace="b"} 1\nm{namespace="a"} 1\n',
         b'm{namespace="b"} 1\nm{namespace="a",team="x",tier="1"} 1\n' + INFO),
        (b'm{namespace="b"} 1\nm{namespace="a"} 1',
         b'm{namespace="b"} 1\nm{namespace="a",team="x",tier="1"} 1\n' + INFO),
        (b'm{namespace="b"} 1\nm{ namespace="a"} 1\n# EOF\n',
         b'm{namespace="b"} 1\nm{ namespace="a",team="x",tier="1"} 1\n' + INFO + b"# EOF\n"),
        (b"# EOF", HELP + b"# EOF"),
        (b"# EOF\nm 1\n", b"# EOF\nm 1\n" + HELP),
        (b"# EOFX\n", b"# EOFX\n" + HELP),
        (b"# E", b"# E\n" + HELP),
        (b"m 1 # EOF", b"m 1 # EOF\n" + HELP),
        (b"m 1\n\n", b"m 1\n\n" + HELP),
        (b'm{namespace=""} 1\nm{namespace="",team="y"} 1\n', b'm{namespace=""} 1\nm{namespace="",team="y"} 1\n' + HELP),
        (b"", HELP),
        (b'm{namespace="q\\"\\\\"} 1\n',
         b'm{namespace="q\\"\\\\"} 1\n' + HELP + b'kube_namespace_labels{namespace="q\\"\\\\"} 1\n'),
    ],
)  # fmt: skip
def test_the_info_metric(text, expected):
    """A sample per namespace seen, sorted, as the last family, before OpenMetrics' end."""
    for cut in (None, 1, 2, 5, 13):
        assert run(text, cut, info=True) == expected


def test_only_the_namespaces_of_the_answer():
    """What is not selected, or not understood, is not seen."""
    text = b'm{namespace="a"} 1\nm{namespace="b"} 1\nm{namespace="c" 1\n'
    chosen = Selection(exclude_namespaces=Globs(("a",)))
    assert run(text, selection=chosen, info=True) == (
        b'm{namespace="b"} 1\nm{namespace="c" 1\n'
        + HELP
        + b'kube_namespace_labels{namespace="b"} 1\n'
    )


def test_labels_are_selected_before_they_are_added():
    """A label taken off can be added anew from the namespace."""
    text = b'm{namespace="a",team="old"} 1\n'
    chosen = Selection(drop_labels=frozenset({b"team"}))
    assert run(text, selection=chosen) == b'm{namespace="a",team="x",tier="1"} 1\n'
    assert run(text[:-1], selection=chosen) == b'm{namespace="a",team="x",tier="1"} 1'
