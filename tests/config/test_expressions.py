"""Regular expressions are RE2's: the ones that Prometheus accepts, with the same meaning."""

import json
import os
import random
import subprocess
import sys

import pytest

from kmproxy.cli.main import main
from kmproxy.config.expressions import EXPRESSION_BYTES, MAX_EXPRESSIONS, MAX_PATTERN, parse_regex
from kmproxy.config.loader import Layer, load_sections
from kmproxy.config.samples import SelectionConfig
from kmproxy.errors import ConfigError

WORDS = [
    "container_memory_bytes",
    "container_cpu_total",
    "a",
    "aaa",
    "a{,3}",
    "up\n",
    "Ünïcode",
    "",
]

# An expression, and which of the words above it matches; None where it is refused.
TAKEN = {
    "container_[[:alpha:]]+_bytes": "container_memory_bytes",
    "[^[:space:]]+_total": "container_cpu_total",
    "[[:^digit:]a]+": "container_memory_bytes container_cpu_total a aaa up\n Ünïcode",
    "a{,3}": "a{,3}",
    "a{1,3}": "a aaa",
    r"a{3}\z": "aaa",
    r"\Aa\z": "a",
    r"\pL+": "a aaa Ünïcode",
    r"\p{Latin}+": "a aaa Ünïcode",
    r"\p{^Greek}nïcode": "Ünïcode",
    r"[\p{Lu}]\w.*": "Ünïcode",
    "(?i)A": "a",
    "(?i:ünï)code": "Ünïcode",
    "(?P<name>a)(?<other>a*)": "a aaa",
    "(?P<n>a)(?P<n>a)a": "aaa",
    r"\Qa{,3}\E": "a{,3}",
    "up.": "up\n",
    "(?-s)up.": "",
    "up": "",
    "a|up": "a",
    "a*?": "a aaa ",
    "(?U)a+": "a aaa",
    r"\x61\x{61}\141": "aaa",
    r"a)(.*": "a aaa a{,3}",
    "": "",
    "[]a]": "a",
    r"\\C|a": "a",
    r"\Q\C\E|a": "a",
}
REFUSED = {
    "(": "missing )",
    "(?=a)a": "invalid perl operator: (?=",
    "(?!b)a": "invalid perl operator: (?!",
    "(?<=b)a": "(?<=",
    "(?<!b)a": "(?<!",
    r"(a)\1": r"invalid escape sequence: \1",
    "(?P<n>a)(?P=n)": "invalid perl operator: (?P",
    "a++": "bad repetition operator: ++",
    "a*+": "bad repetition operator: *+",
    "(?>a)": "invalid perl operator: (?>",
    "a**": "bad repetition operator: **",
    "*a": "no argument for repetition operator: *",
    "a{1001}": "invalid repetition size: {1001}",
    "(a{100}){100}": "invalid repetition size",
    r"\C": r"invalid escape sequence: \C",
    r"a\Q\E\Cb": r"invalid escape sequence: \C",
    r"\Z": r"invalid escape sequence: \Z",
    r"\h": r"invalid escape sequence: \h",
    r"\u0061": r"invalid escape sequence: \u",
    "[[:word:][:letter:]]": "invalid character class range: [:letter:]",
    "[b-a]": "invalid character class range: b-a",
    r"\p{Klingon}": r"invalid character class range: \p{Klingon}",
    "(?#note)": "invalid perl operator: (?#",
    "(?x)a b": "invalid perl operator: (?x",
    "a\\": "trailing \\",
    r"\Qa": "missing )",
}


@pytest.mark.parametrize(("pattern", "words"), TAKEN.items())
def test_what_is_taken(pattern, words):
    """An expression matches whole names, and a dot is one character, as in Prometheus."""
    assert [word for word in WORDS if word and parse_regex(pattern).match(word)] == [
        word for word in words.split(" ") if word
    ]


@pytest.mark.parametrize(("pattern", "why"), REFUSED.items())
def test_what_is_refused(pattern, why):
    """The error has RE2's reason, and quotes the expression."""
    with pytest.raises(ValueError, match="is not a regular expression that RE2 accepts: ") as error:
        parse_regex(pattern)
    assert why in str(error.value)


@pytest.mark.program("promtool")
def test_prometheus_takes_the_same(tmp_path):
    """As the expression of a relabelling, promtool accepts exactly the same."""
    differ = []
    for number, pattern in enumerate([*TAKEN, *REFUSED]):
        file = tmp_path / f"{number}.yml"
        relabel = {"source_labels": ["a"], "regex": pattern, "action": "keep"}
        job = {"job_name": "x", "relabel_configs": [relabel]}
        file.write_text(json.dumps({"scrape_configs": [job]}))
        result = subprocess.run(
            ["promtool", "check", "config", file], capture_output=True, text=True, check=False
        )
        if (result.returncode == 0) != (pattern in TAKEN):
            differ.append((pattern, result.stdout + result.stderr))
    assert not differ


@pytest.mark.parametrize("flag", ["--keep-metric", "--drop-metric"])
@pytest.mark.parametrize(
    "pattern", ["(?=a)", r"(a)\1", r"\C", "a++", "(", "[[:alpha:]", "\udcff", "x" * 20_000]
)
@pytest.mark.parametrize("command", ["serve", "enrich"])
def test_a_refusal_is_one_plain_line(command, pattern, flag, capfd, tmp_path):
    """Exit status 2 and the flag, without RE2's log or Python's warnings."""
    files = ["--namespaces", str(tmp_path / "none.json")] if command == "enrich" else []
    assert main([command, *files, flag, pattern]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") <= 2, err  # the problem, and that no file is there
    assert f"{flag}" in err
    assert "Warning" not in err


def test_no_warning_reaches_standard_error(tmp_path):
    """A POSIX class keeps its meaning, without a warning in a process of its own."""
    spaces = tmp_path / "spaces.json"
    meta = {"name": "web", "labels": {"team": "T"}}
    spaces.write_text(json.dumps({"kind": "Namespace", "metadata": meta}))
    flags = ["--keep-metric", "container_[[:alpha:]]+_bytes"]
    result = subprocess.run(
        [sys.executable, "-m", "kmproxy", "enrich", "--namespaces", spaces, *flags],
        input='container_memory_bytes{namespace="web"} 1\ncontainer_cpu_total{namespace="web"} 1\n',
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "always"},
    )
    assert result.stdout == 'container_memory_bytes{namespace="web",team="T"} 1\n'
    assert (result.returncode, result.stderr) == (0, "")


def test_states_beyond_the_memory_are_answered_all_the_same(capfd):
    """2**300 states do not fit. RE2 continues without them, exactly and silently."""
    expression = parse_regex("(a|b)*a(a|b){300}")
    draw = random.Random(13)
    for _ in range(200):
        name = "".join(draw.choices("ab", k=1000))
        assert expression.match(name) == (name[-301] == "a")
    assert capfd.readouterr() == ("", "")


def test_an_expression_that_takes_too_much_is_refused():
    """An expression that is too long or too large is refused, before it is compiled whole."""
    with pytest.raises(ValueError, match="pattern too large"):
        parse_regex(".{1000}" * 400)
    with pytest.raises(ValueError, match=f"over {MAX_PATTERN} characters: split the expression$"):
        parse_regex("x" * (MAX_PATTERN + 1))


def test_a_long_list_of_names_is_taken():
    """Names joined by |, of nearly the maximum length, are accepted."""
    names = [f"container_memory_{number}_bytes" for number in range(350)]
    expression = parse_regex("|".join(names))
    assert len(expression.pattern) > MAX_PATTERN * 0.9
    assert all(expression.match(name) for name in names)
    assert not expression.match("container_memory_350_bytes")


def test_there_are_not_too_many():
    """The number of expressions is bounded, and the error says what to do."""
    flags = {"keep-metric": [f"k{n}" for n in range(20)], "drop-metric": ["d"] * 12}
    (selection,) = load_sections([Layer("flags", "--", flags)], SelectionConfig)
    assert len(selection.keep_metric + selection.drop_metric) == MAX_EXPRESSIONS
    flags["drop-metric"].append("e")
    with pytest.raises(ConfigError, match=r"33 regular expressions, at most 32: join some"):
        load_sections([Layer("flags", "--", flags)], SelectionConfig)


def test_the_worst_expressions_take_what_is_said():
    """32 expressions with full state memory stay within their bound and a tenth."""
    code = f"""
import random, resource
from kmproxy.config.expressions import parse_regex
draw = random.Random(13)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
parse_regex("a").match("a")
before = peak()
held = [parse_regex(f"(a|b|{{n}})*a(a|b){{{{300}}}}") for n in range({MAX_EXPRESSIONS})]
for each in held:
    for _ in range(20):
        each.match("".join(draw.choices("ab", k=1000)))
print(peak() - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert int(result.stdout) < MAX_EXPRESSIONS * EXPRESSION_BYTES * 1.1
