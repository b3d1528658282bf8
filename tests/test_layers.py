"""The architecture: folders on levels, and which of them may know which (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.modules import FOLDERS, MODULES, PACKAGE, PLAIN

LEVELS = (
    {"revision", "errors"},
    {"exposition", "telemetry"},
    {"config", "content_coding", "own_file", "openssl", "allowances", "process", "supervisor"},
    {"client", "web"},
    {"kube"},
    {"labels", "sources", "auth"},
    {"scrape", "discovery", "logs", "enrich", "demo"},
    {"daemon", "bench"},
    {"check"},
    {"cli"},
    {"__main__"},
)
"""A folder, or a module beside the folders, imports only from levels before its own."""

SIMULATED = {"bench", "demo", "simulator"}
"""The simulator imports nothing of ours, and only these import it."""

PURE = [
    "allowances",
    "exposition",
    "config",
    "kube.watch",
    "kube.object_list",
    "kube.reviews",
    "kube.permissions",
    "kube.contexts",
    "kube.context_options",
    "kube.context_entries",
    "kube.kubeconfig_format",
    "kube.go_yaml",
    "labels.label_map",
    "labels.rendering",
    "client.addresses",
    "client.pins",
    "web.open_connections",
    "web.heads",
    "web.expiry",
    "auth.tenant_filter",
    "scrape.routes",
    "scrape.status_page",
    "discovery.documents",
    "logs.lines",
    "logs.positions",
    "logs.cri",
    "logs.listing",
    "logs.unpacking",
    "logs.pace",
    "logs.restarts",
    "logs.exchange",
    "logs.progress",
    "logs.reader",
    "check.report",
    "check.observations",
]
IMPURE = {"asyncio", "aiohttp", "os", "time", "logging", "socket", "ssl", "random"}

HEAVY = {
    "kubernetes_asyncio": "kube.oidc",
    "bcrypt": "web.passwords",
    "cryptography": "check.certificates",
    "trustme": "simulator.cluster",
    "re2": "config.expressions",
}
"""Libraries that cost memory, and the module that each is imported in."""

OPTIONAL = [
    "kmproxy.config.http_client",
    "kmproxy.config.http_options",
    "kmproxy.config.proxies",
    "kmproxy.config.upstreams",
    "kmproxy.client.factory",
    "kmproxy.client.oauth2",
    "kmproxy.sources.http",
    "kmproxy.simulator.cluster",
    "kmproxy.demo",
    "kmproxy.check.preflight",
    "kmproxy.check.certificates",
    "kmproxy.web.passwords",
]
"""Modules that neither a daemon without settings nor the command line loads."""


def imports(tree):
    """Every module that is imported anywhere in the tree, each by its full name.

    What `from a import b` names counts as the module `a.b`, too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "modules are imported by their full names"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(name):
    """The syntax tree of one of our modules."""
    return ast.parse(MODULES[name].read_text("utf-8"))


def ours(tree):
    """The modules of kmproxy that are imported, by their names in it."""
    names = {name.removeprefix("kmproxy.") for name in imports(tree) if name.startswith("kmproxy.")}
    return names & set(MODULES)


def wrong(name, imported):
    """Why a module may not import another, or None."""
    own, other = name.split(".")[0], imported.split(".")[0]
    level = {each: number for number, folders in enumerate(LEVELS) for each in folders}
    if own == other:
        return None
    if "simulator" in {own, other}:
        return None if own in SIMULATED - {"simulator"} else "the simulator stands apart"
    if own == "exposition":
        return "exposition imports nothing of ours"
    return None if level[other] < level[own] else f"{other} is not below {own}"


def circle(graph):
    """Modules of a graph that import each other in a circle; empty if there are none."""
    left = dict(graph)
    while free := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in free}
    return set(left)


@pytest.mark.parametrize(
    ("name", "imported", "allowed"),
    [
        ("scrape.scraper", "sources.kubelet", True),
        ("sources.kubelet", "scrape.routes", False),  # upwards
        ("labels.namespaces", "sources.kubelet", False),  # a neighbour
        ("exposition.lines", "errors", False),
        ("simulator.api", "errors", False),
        ("scrape.scraper", "simulator.api", False),
        ("demo", "simulator.cluster", True),
        ("web.listener", "web.heads", True),
    ],
)
def test_the_rules(name, imported, allowed):
    """What the levels allow, by example."""
    assert (wrong(name, imported) is None) is allowed


def test_circles_are_found():
    """Two modules that import each other are one, however they are reached."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}
    assert circle({"a": {"b"}, "b": set()}) == set()


def test_every_folder_has_a_level():
    """A new folder has to find its place, and one that is gone gives it up."""
    named = {each for folders in LEVELS for each in folders} | {"simulator"}
    assert named == {name.split(".")[0] for name in PLAIN}


@pytest.mark.parametrize("name", PLAIN)
def test_a_module_imports_only_what_is_below_it(name):
    """Neither from above nor from a neighbour, not even for types or inside a function."""
    problems = {each: wrong(name, each) for each in ours(parsed(name))}
    assert {each: problem for each, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_inside_a_folder(folder):
    """The files of a folder stand in an order."""
    graph = {name: ours(parsed(name)) for name in PLAIN if name.startswith(f"{folder}.")}
    assert circle(graph) == set()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_is_pure(name):
    """No event loop, socket, clock, file, log or chance."""
    chosen = [each for each in PLAIN if each == name or each.startswith(f"{name}.")]
    assert chosen
    for each in chosen:
        assert not {imported.split(".")[0] for imported in imports(parsed(each))} & IMPURE, each


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_in_one_module(library):
    """So that it can be told what needs it."""
    found = {
        name
        for name in MODULES
        if library in {each.split(".")[0] for each in imports(parsed(name))}
    }
    assert found == {HEAVY[library]}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("cli.main", {"argparse", "aiohttp", "prometheus_client", "kmproxy.daemon.daemon"}),
        ("daemon.daemon", {"kmproxy.cli.main", "kmproxy.enrich", "kmproxy.simulator.cadvisor"}),
    ],
)
def test_what_most_do_without_is_not_loaded(module, unwanted):
    """A new interpreter that imports it has not paid for kubeconfigs, YAML or the demo."""
    code = f"import sys, kmproxy.{module}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = set(result.stdout.split())
    assert f"kmproxy.{module}" in loaded
    assert sorted(loaded & (unwanted | {*HEAVY, "yaml", *OPTIONAL})) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_face_of_a_folder(folder):
    """Its `__init__` is a docstring only, which names each of its files."""
    tree = parsed(f"{folder}.__init__")
    text = ast.get_docstring(tree)
    assert len(tree.body) == 1
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("    ")}
    assert listed == {name.split(".")[1] for name in PLAIN if name.startswith(f"{folder}.")}


def test_no_test_file_imports_another():
    """What tests share stands in `tests/support`."""
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    assert files
    for file in files:
        text = file.read_text("utf-8")
        assert not re.findall(r"^ *from (?:tests\.\S*|\.)test_", text, re.MULTILINE), file
