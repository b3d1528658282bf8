"""The architecture: a module imports only from those that stand before it in the order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kmproxy

PACKAGE = Path(kmproxy.__file__).parent

FLOORS = (
    (
        "errors",
        "values",
        "yamltext",
        "proxies",
        "goyaml",
        "kubeformat",
        "contexts",
        "access",
        "expressions",
        "labels",
        "rendering",
        "labelmap",
        "namespaceinfo",
        "endpoints",
        "routes",
        "settings",
        "config",
        "commands",
        "variables",
        "loader",
        "addresses",
        "pins",
        "permissions",
        "findings",
        "webconfig",
        "expiry",
        "encoding",
        "grammar",
        "lines",
        "exposition",
        "selftest",
        "selection",
        "pipeline",
        "recipe",
        "observations",
        "objectlist",
        "outage",
        "watch",
        "discovery",
        "pages",
        "reviews",
        "tenancy",
        "heads",
        "open_connections",
        "allowances",
    ),
    (
        "revision",
        "telemetry",
        "own_file",
        "openssl",
        "tls",
        "credentials",
        "identity",
        "execplugin",
        "oidc",
        "kubeconfig",
        "serviceaccount",
        "kubelettrust",
        "pinning",
        "connector",
        "upstream",
        "oauth2",
        "certificates",
        "apiserver",
        "nodes",
        "kubelet",
        "webfile",
        "passwords",
    ),
    (
        "pinfile",
        "namespaces",
        "snapshot",
        "slots",
        "targets",
        "reviewer",
        "footholds",
        "tenant",
        "auth",
    ),
    (
        "responses",
        "connection",
        "listener",
        "guard",
        "health",
        "peers",
        "door",
        "server",
        "httpsd",
        "infopage",
    ),
    ("reach", "clients", "app", "enrich", "everybody", "check"),
    ("simfamilies", "simcadvisor", "simwire", "simobjects", "simprotobuf", "simpods", "simkubelet"),
    (
        "simrbac",
        "simstore",
        "simview",
        "simservices",
        "simanswers",
        "simproxy",
        "simapi",
        "simcluster",
    ),
    ("supervisor", "demo", "benchdaemon", "benchdiscovery", "benchtables", "bench"),
    ("cli", "__main__"),
)
ORDER = [module for floor in FLOORS for module in floor]
SIMULATOR = [module for module in ORDER if module.startswith("sim")]
IMPURE = {"asyncio", "aiohttp", "os", "time", "logging", "socket", "ssl", "random"}


def imports(tree):
    """Every module that is imported anywhere in the tree, each by its full name.

    What `from kmproxy import x` names counts as the module `kmproxy.x`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                name = f"kmproxy.{name}" if name else "kmproxy"
            if name == "kmproxy":
                yield from (f"kmproxy.{alias.name}" for alias in node.names)
            else:
                yield name


def ours(tree):
    """The kmproxy modules that are imported, without the package itself."""
    names = {name for name in imports(tree) if name.startswith("kmproxy.")}
    return {name.split(".")[1] for name in names} - {"__version__"}


def parsed(module):
    """The syntax tree of one of our modules."""
    return ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import asyncio.events", {"asyncio.events"}),
        ("import a, b as c", {"a", "b"}),
        ("from kmproxy import __version__, labels", {"kmproxy.__version__", "kmproxy.labels"}),
        ("from kmproxy.labels import Namespace", {"kmproxy.labels"}),
        ("from . import labels", {"kmproxy.labels"}),
        ("from .labels import Namespace", {"kmproxy.labels"}),
        ("if TYPE_CHECKING:\n    import kmproxy.app", {"kmproxy.app"}),
        ("def f():\n    async def g():\n        from time import sleep", {"time"}),
        ("try:\n    import x\nexcept ImportError:\n    import y", {"x", "y"}),
    ],
)
def test_no_import_is_overlooked(source, found):
    """The reader of imports sees all spellings, in functions and for types as well."""
    assert set(imports(ast.parse(source))) == found


def test_the_order_lists_every_module():
    """A new module has to find its place, and one that is gone gives it up."""
    assert sorted(ORDER) == sorted({path.stem for path in PACKAGE.glob("*.py")} - {"__init__"})


def test_the_package_is_flat():
    """There is no package inside the package, where the order would not be looked after."""
    assert not list(PACKAGE.glob("*/*.py"))


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_before_it(module):
    """Dependencies point one way: no cycle, not even for types or inside a function."""
    above = set(ORDER[: ORDER.index(module)])
    assert ours(parsed(module)) <= above


@pytest.mark.parametrize("module", SIMULATOR)
def test_the_simulator_stands_alone(module):
    """It imports nothing of ours but itself, so it cannot share our mistakes."""
    assert ours(parsed(module)) <= set(SIMULATOR[: SIMULATOR.index(module)])


@pytest.mark.parametrize("module", FLOORS[0])
def test_the_lowest_floor_is_pure(module):
    """No event loop, socket, clock, file, log or chance."""
    assert not {name.split(".")[0] for name in imports(parsed(module))} & IMPURE


@pytest.mark.parametrize("module", ["__init__", *ORDER])
def test_kubernetes_asyncio_is_imported_where_it_is_needed(module):
    """Only a function of `oidc` imports it: it costs 65 MiB."""
    tree = parsed(module)
    here = {name.split(".")[0] for name in imports(tree)}
    if module != "oidc":
        assert "kubernetes_asyncio" not in here
        return
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {
        id(part)
        for function in ast.walk(tree)
        if isinstance(function, functions)
        for part in ast.walk(function)
    }
    statements = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.startswith("kubernetes_asyncio") for name in imports(node))
    ]
    assert statements
    assert all(id(node) in inside for node in statements)


@pytest.mark.parametrize("module", ["__init__", *ORDER])
def test_re2_is_imported_where_it_is_needed(module):
    """Only a function of `expressions` imports it: it costs 3 MiB."""
    here = {name.split(".")[0] for name in imports(parsed(module))}
    assert ("re2" in here) == (module == "expressions")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("kmproxy.cli", {"argparse", "aiohttp", "prometheus_client", "kmproxy.app"}),
        ("kmproxy.app", {"kmproxy.cli", "kmproxy.enrich", "kmproxy.simcadvisor"}),
    ],
)
def test_the_daemon_loads_nothing_that_it_may_not_need(module, unwanted):
    """A fresh interpreter that imports it has not paid for kubeconfigs, YAML or the demo."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(result.stdout.split())
    optional = {"kmproxy.access", "kmproxy.proxies", "kmproxy.reach", "kmproxy.oauth2"}
    never = optional | {
        "kubernetes_asyncio",
        "trustme",
        "yaml",
        "kmproxy.simcluster",
        "kmproxy.demo",
    }
    never |= {"cryptography", "kmproxy.check", "kmproxy.certificates"}
    never |= {"re2", "_re2", "re2._re2"}
    never |= {"bcrypt", "kmproxy.passwords"}
    assert module in loaded
    assert sorted(loaded & (unwanted | never)) == []
