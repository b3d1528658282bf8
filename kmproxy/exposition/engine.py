"""Chooses the engine that reads the lines of expositions: the pure one, or the compiled one.

The pure engine is written in Python and is always there. The compiled engine is the package
`kmproxy-engine`. Both give the same output and the same counts.

The environment variable `KMPROXY_ENGINE` forces one of them. Without it, the compiled engine is in
use where it can be imported, and its interface is the one that this version of kmproxy knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Literal, get_args

Engine = Literal["pure", "compiled"]
"""The name of an engine."""

VARIABLE = "KMPROXY_ENGINE"
"""The environment variable that forces an engine."""

INTERFACE = 3
"""The interface of the compiled engine that this version of kmproxy knows."""


class EngineError(RuntimeError):
    """The engine that was asked for cannot be used. The message is a plain line."""


@cache
def _compiled_problem() -> str | None:
    """Returns why the compiled engine cannot be used; None if it can."""
    try:
        found = import_module("kmproxy_engine").INTERFACE
    except (ImportError, AttributeError):
        return "the compiled engine is not installed: install kmproxy[engine]"
    if found != INTERFACE:
        return (
            f"the installed kmproxy-engine has interface {found}, and this kmproxy needs "
            f"{INTERFACE}: install the version of kmproxy-engine that kmproxy[engine] names"
        )
    return None


def available() -> tuple[Engine, ...]:
    """Returns the engines that can be used here."""
    return ("pure",) if _compiled_problem() else ("pure", "compiled")


def choose(environment: Mapping[str, str]) -> tuple[Engine, str | None]:
    """Returns the engine for an environment, and a problem: a plain line if it cannot be used."""
    forced = environment.get(VARIABLE, "")
    if not forced:
        return available()[-1], None
    if forced not in get_args(Engine):
        return "pure", f"{VARIABLE} is {forced!r}: it must be 'pure' or 'compiled'"
    if forced == "compiled" and (problem := _compiled_problem()):
        return "compiled", f"{VARIABLE} is 'compiled', but {problem}"
    return ("compiled" if forced == "compiled" else "pure"), None


IN_USE, PROBLEM = choose(os.environ)
"""The engine in use, and the reason why it cannot be used, if there is one."""


def named(engine: Engine | None) -> Engine:
    """Returns an engine that can be used: the named one, or the one in use. Raises EngineError."""
    problem = PROBLEM
    if engine is not None:
        problem = _compiled_problem() if engine == "compiled" else None
    if problem:
        raise EngineError(problem)
    return engine or IN_USE
