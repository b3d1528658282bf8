"""The choice of the engine."""

import os
import subprocess
import sys

import pytest

from kmproxy.exposition import engine
from kmproxy.exposition.engine import EngineError, available, choose, named
from kmproxy.exposition.pipeline import Pipeline, Recipe


@pytest.fixture
def compiled(monkeypatch):
    """Sets whether, and with which interface, the compiled engine can be imported."""

    def set_interface(interface):
        package = None if interface is None else type("package", (), {"INTERFACE": interface})
        monkeypatch.setitem(sys.modules, "kmproxy_engine", package)
        engine._compiled_problem.cache_clear()

    yield set_interface
    engine._compiled_problem.cache_clear()


def test_the_compiled_engine_is_preferred(compiled):
    """It is in use where it is installed, unless the environment forces the pure one."""
    compiled(engine.INTERFACE)
    assert available() == ("pure", "compiled")
    assert choose({}) == choose({"KMPROXY_ENGINE": "compiled"}) == ("compiled", None)
    assert choose({"KMPROXY_ENGINE": "pure"}) == ("pure", None)


@pytest.mark.parametrize(
    ("interface", "problem"), [(None, "is not installed"), (engine.INTERFACE + 1, "has interface")]
)
def test_without_a_compiled_engine(compiled, interface, problem):
    """The pure one is in use. An engine that is forced and not there is an error."""
    compiled(interface)
    assert available() == ("pure",)
    assert choose({}) == choose({"KMPROXY_ENGINE": ""}) == ("pure", None)
    assert problem in choose({"KMPROXY_ENGINE": "compiled"})[1]
    with pytest.raises(EngineError, match=problem):
        named("compiled")
    with pytest.raises(EngineError, match=problem):
        Pipeline(dict.get, Recipe(), engine="compiled")
    assert named("pure") == "pure"


def test_a_problem_is_told(monkeypatch):
    """It is an error of the command line. No other engine is used instead."""
    done = subprocess.run(
        [sys.executable, "-m", "kmproxy", "--version"],
        env=os.environ | {"KMPROXY_ENGINE": "fast"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "kmproxy: KMPROXY_ENGINE is 'fast': it must be 'pure' or 'compiled'\n"
    monkeypatch.setattr(engine, "PROBLEM", "a problem")
    with pytest.raises(EngineError, match="a problem"):
        Pipeline(dict.get, Recipe())
