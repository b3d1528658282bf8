"""The soak run detects every wrong answer, and a short run detects none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.soak import LAG, Truth, fault_of

PAYLOAD = (
    b"# TYPE m gauge\n"
    b'm{namespace="a",pod="p"} 1 1700000000000\n'
    b'm{exported_namespace="a",namespace="b"} 2\n'
    b'm{namespace="",pod=""} 3\n'
)
RIGHT = (
    b"# TYPE m gauge\n"
    b'm{namespace="a",team="x",pod="p"} 1 1700000000000\n'
    b'm{exported_namespace="a",namespace="b"} 2\n'
    b'm{namespace="",pod=""} 3\n'
)


@pytest.fixture
def truth():
    """Namespace a was of team x at second 100, and b of none."""
    truth = Truth()
    truth.set("a", "w", 0)
    truth.set("a", "x", 100)
    truth.set("a", "y", 200)
    truth.set("b", None, 0)
    return truth


def test_a_right_answer(truth):
    """The body with the labels of its time is right."""
    assert fault_of(RIGHT, PAYLOAD, truth, 150, 151) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b',team="x"', b""),
        (b',team="x"', b',team="w"'),
        (b',team="x"', b',team="y"'),
        (b'namespace="b"', b'namespace="b",team="x"'),
        (b'exported_namespace="a"', b'exported_namespace="a",team="x"'),
        (b'namespace=""', b'namespace="",team="x"'),
        (b"} 1 ", b"}  1 "),
        (b'm{namespace="",pod=""} 3\n', b""),
        (b" 3\n", b" 3"),
        (b"# TYPE m gauge\n", b""),
    ],
)
def test_a_wrong_answer(truth, right, wrong):
    """A missing, stale, early or misplaced label, a changed byte or a cut end is detected."""
    assert right in RIGHT
    assert fault_of(RIGHT.replace(right, wrong, 1), PAYLOAD, truth, 150, 151) is not None


def test_what_was_right_not_long_ago(truth):
    """Around a change both teams are right; during an outage for longer."""
    before, after = RIGHT, RIGHT.replace(b'"x"', b'"y"')
    for answer in (before, after):
        assert fault_of(answer, PAYLOAD, truth, 199, 201) is None
        assert fault_of(answer, PAYLOAD, truth, 200 + LAG / 2, 203) is None
    assert fault_of(before, PAYLOAD, truth, 200 + LAG + 1, 210) is not None
    truth.trouble(190)
    assert fault_of(before, PAYLOAD, truth, 200 + LAG + 1, 210) is None
    assert fault_of(before, PAYLOAD, truth, 300, 301) is not None


def test_a_short_soak():
    """A few seconds of faults in front of a real daemon give no wrong answer."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.soak", "--seconds", "4", "--seed", "7"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers whole and rightly labelled" in done.stdout
