"""The `upstreams` section beside other settings, and values of its keys that are of no use."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config
from kmproxy.config.recipe import reserved_names
from kmproxy.config.upstreams import MAX_NAME, read_upstreams
from kmproxy.errors import ConfigError

KSM = {"name": "ksm", "url": "http://ksm/metrics"}
WANTED = "upstreams[ksm].namespace-labels: "


def wrong(**more):
    """What is wrong with one entry."""
    return read_upstreams([KSM | more], "upstreams")[1]


def loaded(tmp_path, labels, *flags):
    """The configuration with one upstream that has these namespace labels."""
    path = tmp_path / "config.yaml"
    path.write_text(f"upstreams: [{{name: ksm, url: 'http://ksm/', namespace-labels: {labels}}}]")
    return read_config([f"--config={path}", *flags])[0]


@pytest.mark.parametrize("value", [[], {}, ["text"], {"text": "text"}, None, 1, True, ""])
def test_a_format_of_another_type(value):
    """It is a problem with its own line, whatever YAML made of it."""
    assert wrong(format=value) == [
        "upstreams[ksm].format: the value is neither 'text' nor 'openmetrics'"
    ]


@pytest.mark.parametrize("end", ['"}x', "|.", "\n", "é", "-"])
def test_a_long_label_is_read_to_its_end(end):
    """A label is a word from its first character to its last one."""
    (problem,) = wrong(**{"namespace-labels": ["a" * 100 + end]})
    assert problem.startswith(WANTED)
    assert "is not a label name" in problem


def test_labels_and_prefixes_of_any_length():
    """A label and a prefix have a longest length."""
    assert wrong(**{"namespace-labels": {"a" * MAX_NAME: "b" * MAX_NAME}}) == []
    assert wrong(**{"namespace-labels": ["a" * (MAX_NAME + 1)]}) == [
        f"{WANTED}{'a' * 80!r}... has over 256 characters"
    ]
    assert wrong(**{"namespace-labels": {"a": "b" * (MAX_NAME + 1)}}) == [
        f"{WANTED}the prefix of a has over 256 characters"
    ]


def test_a_label_of_a_list_is_not_dropped(tmp_path):
    """Without the first label of a list, the next one would name another namespace."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, "[exported_namespace, namespace]", "--drop-label=exported_namespace")
    (problem,) = raised.value.problems
    assert problem == (
        "--drop-label exported_namespace: upstreams[ksm].namespace-labels has it in a list: "
        "without it the next label of the list would name another namespace"
    )
    for labels in ("[exported_namespace]", "{exported_namespace: e_, namespace: n_}"):
        assert loaded(tmp_path, labels, "--drop-label=exported_namespace").upstreams


def test_an_underscore_before_any_label(tmp_path):
    """A label such as `1st` becomes `_1st`, and behind the prefix `_` no label of anyone's."""
    with pytest.raises(ConfigError, match="with '\\*', '_' may make a label that begins with two"):
        loaded(tmp_path, "{a: _}", "--label=*")
    assert loaded(tmp_path, "{a: _}", "--label=team").upstreams


@pytest.mark.parametrize(
    ("labels", "flags", "names"),
    [
        ("[namespace]", [], {"namespace"}),
        ("[exported_namespace, namespace]", [], {"namespace", "exported_namespace"}),
        ("{a_ns: a_, b_ns: b_}", [], {"ns"}),
        ("{a_b_ns: a_, b_c: b_, x: n}", [], {"b_ns", "c", "amespace"}),
        ("[a]", ["--workload"], {"a", "namespace", "pod", "workload", "workload_type"}),
    ],
)
def test_names_that_a_wildcard_must_not_make(tmp_path, labels, flags, names):
    """Alone, or with a prefix before it, no label of `*` is a namespace label."""
    assert reserved_names(loaded(tmp_path, labels, "--label=*", *flags)) == names
