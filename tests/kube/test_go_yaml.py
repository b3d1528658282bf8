"""YAML as Go programs read it: scalars, documents and bounds."""

from __future__ import annotations

import pytest

from kmproxy.kube.go_yaml import MAX_DEPTH, MAX_VALUES, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment\n", None),
        ("---\n---\na: 1", None),
        ("a: 1\n---\nb: [", {"a": 1}),
        ('{\n\t"a": [\n\t\t"b"\n\t]\n}', {"a": ["b"]}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("c: {b: 2, <<: [{b: 1}, {e: 3}]}", {"c": {"b": 2, "e": 3}}),
        ("'<<': 1", {"<<": 1}),
        ("a: 1\na: 2", {"a": 2}),
        ("1: a\nyes: b", {"1": "a", "yes": "b"}),
        ("\ufeffa: b", {"a": "b"}),
        ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
    ],
)
def test_documents(text, value):
    """The first document counts, tabs are allowed in JSON, and the last value of a key counts."""
    assert load(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("017", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("-1_000", -1000),
        ("089", 89.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("yes", True),
        ("y", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("=", "="),
        ("+", "+"),
        ("1.2.3", "1.2.3"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars(text, value):
    """Scalars have the types of go-yaml v2, which differ from YAML 1.1."""
    found = load(f"a: {text}".encode())["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: [planted", "the file is not YAML in line 2"),
        (b"a: 1\nb: planted: c", "the file is not YAML in line 2"),
        (b"a: \xff", "the file is not YAML"),
        (b"[a]: b", "a key is a mapping or a list"),
        (b"a: *planted", "an alias has no anchor before it"),
        (b"a: &a [*a]", "an alias has no anchor before it"),
        (b"{<<: planted}", "<< merges a value that is not a mapping"),
        (b"[" * 100_000, f"the file has over {MAX_DEPTH} levels of nesting"),
        (b"- " * 100_000, f"the file has over {MAX_DEPTH} levels of nesting"),
        (
            b"- &a0 [x]\n" + b"".join(b"- &a%d [*a%d,*a%d]\n" % (n + 1, n, n) for n in range(40)),
            f"the file holds over {MAX_VALUES:,} values",
        ),
    ],
)
def test_what_is_refused(text, problem):
    """An error names the place, never the text. Depth and aliases are bounded."""
    with pytest.raises(ValueError, match=r"the file|a key|an alias|<<") as raised:
        load(text)
    assert str(raised.value) == problem
