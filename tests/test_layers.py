"""The architecture: folders on levels, and their allowed imports (docs/architecture.md)."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.modules import FOLDERS, HEAVY, MODULES, PLAIN, circle, libraries, ours, parsed

LEVELS = """\
revision errors
exposition telemetry bounded_cache daemon_process
config content_coding own_file openssl digests allowances shared process supervisor
client web
kube
labels sources auth
status
scrape discovery logs enrich demo
daemon bench
check
cli
__main__
"""
"""A folder, or a module beside the folders, imports only from lines above its own."""

SIMULATED = {"bench", "demo", "simulator"}
"""The simulator imports nothing of ours, and only these import it."""

PURE = """\
bounded_cache allowances digests exposition config auth.tenant_filter
discovery.documents discovery.fitting discovery.nodes discovery.pods discovery.target_labels
client.addresses client.pins web.open_connections web.heads web.expiry
kube.objects kube.object_list kube.watch kube.backoff kube.reviews kube.permissions
kube.contexts kube.context_options kube.context_entries kube.kubeconfig_format kube.go_yaml
logs.positions logs.cri logs.listing logs.unpacking logs.pace logs.exchange logs.progress
logs.restarts logs.looks logs.cursor logs.reader logs.pods logs.page logs.api_text logs.api_reader
logs.event_text logs.event_progress logs.event_watch kube.lease
logs.lines logs.streams logs.loki logs.nanoseconds logs.queues logs.batches
kube.pod_list labels.label_map labels.rendering labels.workloads labels.pods
scrape.routes check.report check.observations
status.outcomes status.namespaces status.settings status.model status.words status.markup
status.tables status.page status.query status.scrape_section status.namespace_section
status.process_section
"""
"""Modules, and folders of modules, without an event loop, socket, clock, file, log or chance."""

IMPURE = {"asyncio", "aiohttp", "os", "time", "logging", "socket", "ssl", "random"}

ALLOWED = {"exposition.engine": {"os"}}
"""It reads one environment variable, at its import."""

LEVEL = {each: level for level, line in enumerate(LEVELS.splitlines()) for each in line.split()}


def wrong(name, imported):
    """The reason why a module may not import another, or None."""
    own, other = name.split(".")[0], imported.split(".")[0]
    if own == other:
        return None
    if "simulator" in {own, other}:
        return None if own in SIMULATED - {"simulator"} else "the simulator stands apart"
    if own == "exposition":
        return "exposition imports nothing of ours"
    return None if LEVEL[other] < LEVEL[own] else f"{other} is not below {own}"


@pytest.mark.parametrize(
    "wrongly",
    [
        *("sources.kubelet scrape.routes", "labels.namespaces sources.kubelet"),
        *("exposition.lines errors", "simulator.api errors", "scrape.scraper simulator.api"),
    ],
)
def test_a_wrong_import_is_seen(wrongly):
    """Upwards, of a neighbour, by exposition, by the simulator and of it; and a circle of three."""
    assert wrong(*wrongly.split())
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}


def test_every_folder_has_a_level():
    """LEVELS has exactly the existing folders and modules."""
    assert {*LEVEL, "simulator"} == {name.split(".")[0] for name in PLAIN}


@pytest.mark.parametrize("name", PLAIN)
def test_a_module_imports_only_what_is_below_it(name):
    """Never from above or from a neighbour, not even for types or inside a function."""
    assert [(each, why) for each in ours(name) if (why := wrong(name, each))] == []


@pytest.mark.parametrize("name", PURE.split())
def test_a_pure_module_is_pure(name):
    """It is handed time, and whatever it does not compute itself."""
    chosen = [each for each in PLAIN if each == name or each.startswith(f"{name}.")]
    assert chosen
    found = {each: libraries(each) & IMPURE - ALLOWED.get(each, set()) for each in chosen}
    assert {each: impure for each, impure in found.items() if impure} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_inside_a_folder(folder):
    """The files of a folder import each other without a circle."""
    assert circle({name: ours(name) for name in PLAIN if name.startswith(f"{folder}.")}) == set()


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_in_one_module(library):
    """One module per library shows which feature needs it."""
    assert [name for name in MODULES if library in libraries(name)] == [HEAVY[library]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_face_of_a_folder(folder):
    """A folder's `__init__` has only a docstring, which names each of its files."""
    face = parsed(f"{folder}.__init__")
    listed = re.findall(r"^    (\S+)", ast.get_docstring(face), re.MULTILINE)
    assert len(face.body) == 1
    assert sorted(listed) == [name.split(".")[1] for name in PLAIN if name.startswith(f"{folder}.")]


def test_no_test_file_imports_another():
    """Shared helpers are in `tests/support`."""
    texts = {path: path.read_text("utf-8") for path in Path(__file__).parent.rglob("test_*.py")}
    found = re.compile(r"^ *from (?:tests\.\S*|\.)test_", re.MULTILINE)
    assert texts
    assert [path for path, text in texts.items() if found.search(text)] == []
