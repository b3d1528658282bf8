"""The modules and folders of the package, and the imports between them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import kmproxy

PACKAGE = Path(kmproxy.__file__).parent


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


PLAIN = [name for name in MODULES if not name.endswith("__init__")]


FOLDERS = sorted({name.split(".")[0] for name in PLAIN if "." in name})


@cache
def parsed(name):
    """The syntax tree of one of our modules."""
    return ast.parse(MODULES[name].read_text("utf-8"))


@cache
def imports(name):
    """Every module that a module imports, anywhere in its text, each by its full name.

    `from a import b` counts as an import of `a` and of `a.b`.
    """
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "modules are imported by their full names"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def ours(name):
    """The modules of kmproxy that a module imports."""
    return {each.removeprefix("kmproxy.") for each in imports(name)} & set(MODULES)


def libraries(name):
    """The packages that a module imports."""
    return {each.split(".")[0] for each in imports(name)}


def circle(graph):
    """The modules of a graph that import each other in a circle, or lead into one."""
    left = dict(graph)
    while free := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in free}
    return set(left)


HEAVY = {
    "kubernetes_asyncio": "kube.oidc",
    "bcrypt": "web.passwords",
    "cryptography": "check.certificates",
    "trustme": "simulator.cluster",
    "re2": "config.expressions",
}
"""Libraries that cost memory, and the module that each is imported in."""
