"""The self-test at the start: an interpreter that misreads the expressions is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kmproxy
from kmproxy.cli.flags import COMMANDS
from kmproxy.cli.main import main
from kmproxy.exposition import self_test as selftest
from kmproxy.exposition.engine import available
from kmproxy.exposition.enricher import Enricher
from tests.support.programs import faulty_python

ROOT = Path(kmproxy.__file__).parents[1]


@pytest.fixture
def faulty():
    """A Python 3.11 before 3.11.5, and its version. Debian 12 has one."""
    if (found := faulty_python()) is None:
        pytest.skip("no Python 3.11 before 3.11.5 on this machine")
    return found


def run(python, *arguments):
    """Runs a command of kmproxy on an interpreter without packages."""
    return subprocess.run(
        [python, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_this_python_passes():
    """The Python of the tests reads the expressions correctly."""
    assert selftest.self_test() is None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_faulty_python_is_refused(command, faulty):
    """Every command refuses it with one plain line and exit status 1."""
    path, version = faulty
    done = run(path, "-m", "kmproxy", command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"kmproxy: this Python, {version}, fails the self-test: it puts labels on the wrong "
        "samples; use Python 3.11.5 or newer (cpython gh-106052)\n"
    )


def test_each_case_tells_a_faulty_python(faulty):
    """Each case of the self-test detects the faulty Python."""
    code = (
        "from kmproxy.exposition import self_test as selftest\n"
        "for case in (cases := selftest.CASES):\n"
        "    selftest.CASES = (case,)\n"
        "    if selftest.self_test(): print('refused')\n"
    )
    done = run(faulty[0], "-c", code)
    assert done.stdout == "refused\n" * len(selftest.CASES)
    assert done.stderr == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_needs_no_samples_works(option, faulty):
    """Help and version work on any Python."""
    assert run(faulty[0], "-m", "kmproxy", option).returncode == 0


def test_an_engine_that_errs(monkeypatch, capsys):
    """Wrong samples end the command, whatever the cause and the version."""
    monkeypatch.setattr(Enricher, "feed", lambda _, data: data)  # it overlooks every sample
    assert "fails the self-test" in selftest.self_test()
    assert main(["bench"]) == 1
    version = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().err.startswith(f"kmproxy: this Python, {version}, fails")


class Overlooking:
    """A compiled engine to which no line is a sample."""

    family = b""

    def __init__(self, **_):
        pass

    def read(self, first, data, start, end, *_):
        return first + data[start:end], b"", (0,) * 10


def failing(**_):
    """As of an engine whose interface is another one than it says."""
    raise TypeError


@pytest.mark.skipif("compiled" not in available(), reason="there is no compiled engine")
@pytest.mark.parametrize("wrong", [Overlooking, failing])
def test_a_compiled_engine_that_errs(monkeypatch, capsys, wrong):
    """It is named, if it is in use. Commands need the engine in use, and the pure one."""
    import kmproxy_engine  # noqa: PLC0415 - it may not be there

    monkeypatch.setattr(kmproxy_engine, "Engine", wrong)
    monkeypatch.setattr(selftest, "IN_USE", "pure")
    assert selftest.self_test() is None
    monkeypatch.setattr(selftest, "IN_USE", "compiled")
    assert main(["bench"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("kmproxy: the compiled engine fails the self-test: ")
    assert said.endswith("set KMPROXY_ENGINE=pure\n")
