"""The daemon's peak memory in the worst case of each row of docs/bounds.md, and of many rows.

The daemon is a process of its own with a pod's identity. The test reads its peak memory
(`VmHWM`). Each row of the document names its case. `-s` prints the figures of the document.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import sys
import zlib
from contextlib import AsyncExitStack
from pathlib import Path

import bcrypt
import pytest

from kmproxy.client.pins import HEAD
from kmproxy.simulator.kubelet import Fault
from tests.support.documents import ROOT
from tests.support.floods import ATTACKS, healthy, token
from tests.support.memory import FIGURES, MANY, SCRAPE, SCRAPES, World, numbered, repeated
from tests.support.pods import hostile_pods
from tests.support.rbac import binding, role
from tests.support.tls import write_config

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")

LIMIT = 100.0
"""MiB that the daemon may take at most with the worst of one bound."""

TOGETHER = 116.0
"""MiB that it may take with the worst of many at once: the pod's limit is 128."""


@pytest.fixture(scope="module", autouse=True)
def _figures():
    yield
    rows = [f"| {case} | {figure:.0f} |" for case, figure in FIGURES.items()]
    sys.stdout.write("\n".join(["", "| case | peak, MiB |", "|---|---|", *rows, ""]))


@pytest.fixture
async def world(cluster, tmp_path):
    """A cluster with a node that answers as each case needs."""
    async with AsyncExitStack() as stack:
        yield World(cluster, tmp_path, stack)


PLAIN = b'container_cpu_usage_seconds_total{namespace="payments",pod="p",container="c"} 1.5\n'
LABELS = ",".join(f'l{number}="{number}"' for number in range(10))


async def nothing(world):
    """One usual scrape."""
    world.node.serve(repeated(PLAIN, 1 << 20))
    await world.start()
    assert await world.scrape(count=1) == ["200"]


async def answers(world):
    """60 MB of samples; lines at their limit and beyond, or that grow; bombs of gzip."""
    world.cluster.api.namespaces.apply("wide", {"team": "w" * 1000})
    flags = ("--info-metric", "--max-response-bytes=67108864", "--on-conflict=overwrite")
    await world.start(*flags)
    long = b'm{namespace="payments",a="' + b"x" * ((1 << 20) - 40) + b'"} 1\n'
    bodies = [
        (repeated(PLAIN, 60 << 20), True),
        (repeated(long, 40 << 20), False),
        (b"m " + b"x" * (60 << 20), True),
        (b"# EOF" + b" " * (60 << 20), True),
        (b'm{namespace="payments",' + b'anamespace="",' * 70_000 + b"} 1\n", True),
        (b"#\n" * (8 << 20), True),
        (b'm{namespace="wide",' + b'team="",' * 130_000 + b"} 1\n", True),
        ((b'm{namespace="wide"' + b',team=""' * 9 + b"} 1\n") * 100_000, True),
        (b"", gzip.compress(b"0" * (1 << 16), 9) * 990),
        (b"", zlib.compress(b'm{namespace="payments"} 1\n' * (8 << 20), 9, 31)),
    ]
    for body, packed in bodies:
        world.node.serve(body, packed=packed)
        await world.scrape(count=2)
    world.node.serve(repeated(long, 20 << 20))
    await world.scrape(count=5)


async def names(world):
    """Metrics, namespaces and pods with unique names, and line heads that need proof."""
    flags = ["--drop-metric=.*_not_there", "--namespace=*", "--info-metric"]
    await world.start(*flags)
    wide = "a" * 900
    bodies = [
        numbered(wide + "_{}" + f'{{{{namespace="payments",{LABELS}}}}} 1\n', 12_000),
        numbered('m{{namespace="n{}' + "x" * 55 + '"}} 1\n', 60_000),
        numbered('m{{namespace="n{}' + "x" * 6000 + '"}} 1\n', 6000),
        numbered('m{{pod="p{}' + "y" * 100 + '",namespace="payments"}} 1\n', 60_000),
        numbered('m{{l{}="1",namespace="payments"}} 1\n', 60_000),
    ]
    for body in bodies:
        world.node.serve(body, packed=True)
        await world.scrape(count=5)


async def series(world):
    """Removed labels on bodies with more series than the limit, five at once."""
    world.node.serve(numbered('m{{namespace="payments",id="/a/{}",pod="p"}} 1\n', 60_000))
    await world.start("--drop-label=pod")
    await world.scrape()


async def tenants(world):
    """Five tenants with one visible namespace each, and bodies with 20,000 namespaces."""
    names = [f"n{number}-{'x' * 50}" for number in range(1000)]
    for name in names:
        world.cluster.api.namespaces.apply(name, {"team": "a"})
    tenant = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}
    rbac = world.cluster.authority.rbac
    rbac.apply(role("tenant", tenant))
    headers = []
    for number in range(5):
        user = f"tenant-{number}"
        rbac.apply(
            binding("ClusterRole", "tenant", {"kind": "User", "name": user}, namespace=names[0])
        )
        bearer = world.cluster.authority.issue(user)
        headers.append(f"Authorization: Bearer {bearer}\r\n".encode())
    body = "".join(f'm{{namespace="{name}",{LABELS}}} 1\n' for name in names) * 20
    world.node.serve(body.encode(), packed=True)
    await world.start("--authorization=tenant")
    await asyncio.gather(*(world.get(headers=each) for each in headers))
    await asyncio.gather(*(world.get(headers=each) for each in headers))
    foreign = numbered('m{{namespace="f{}-' + "x" * 50 + '"}} 1\n', 20_000)
    world.node.serve(foreign, packed=True)
    await asyncio.gather(*(world.get(headers=each) for each in headers))


async def namespaces(world):
    """1,100 namespaces of up to 250 KB. Rules take all for samples, targets and a snapshot."""
    _fill(world, 500)
    _fill(world, 1100, 10)
    snapshot = world.folder / "labels"
    await world.start(
        *("--label=*", "--annotation=*", "--discovery", f"--label-snapshot={snapshot}"),
        own_node=False,
    )
    for number in range(20):
        world.cluster.api.namespaces.apply(f"n{number}", annotations=_crowd("y"))
    async with asyncio.timeout(60):
        while not snapshot.exists():  # noqa: ASYNC110 - a file does not tell
            await asyncio.sleep(0.05)
    assert await world.scrape("/sd/pods", count=2) == ["200", "200"]
    await world.scrape()


def _crowd(letter, count=250):
    return {f"k{number:03}": letter * 1000 for number in range(count)}


def _fill(world, count, each=250):
    for number in range(count):
        world.cluster.api.namespaces.apply(
            f"n{number}", {"team": "a"}, annotations=_crowd("z", each)
        )


async def callers(world):
    """5,000 invented tokens, and users with as many groups as possible or more."""
    good = token(world.cluster)
    await world.start("--authorization=kubernetes", own_node=False)
    few = tuple(f"{number:0>900}" for number in range(60))
    many = tuple(f"group-{number}" for number in range(10_000))
    users = [world.cluster.authority.issue(f"user-{n}", groups=few) for n in range(250)]
    users += [world.cluster.authority.issue(f"more-{n}", groups=many) for n in range(20)]
    users += [f"{'a' * 16_000}{number}" for number in range(300)]
    left = iter(users)

    async def ask():
        for each in left:
            await world.get("/metrics/probes", f"Authorization: Bearer {each}\r\n".encode())

    await asyncio.gather(*(ask() for _ in range(40)))
    headers = f"Authorization: {good}\r\n".encode()
    assert (await world.get(headers=headers))[0] == "200"


async def passwords(world):
    """Passwords of 11 KB on every connection."""
    users = {"alice": bcrypt.hashpw(b"alice", bcrypt.gensalt(4)).decode()}
    config = write_config(world.folder / "web.yaml", {"basic_auth_users": users})
    await world.start(f"--web-config-file={config}")

    async def ask(number):
        secret = base64.b64encode(f"a{number}:".encode() + b"x" * 11_000)
        return await world.get(headers=b"Authorization: Basic %b\r\n" % secret)

    for turn in range(3):
        await asyncio.gather(*(ask(turn * MANY + number) for number in range(MANY)))


async def heads(world):
    """Unfinished, pipelined and oversized requests on every connection."""
    world.cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    await world.start(own_node=False)
    for attack in ATTACKS.values():
        await world.attack(attack)


async def readers(world):
    """Clients that never read, on every connection: samples, targets and the status page."""
    world.node.serve(repeated(PLAIN, 20 << 20), packed=True)
    _pods(world)
    await world.start("--discovery", "--namespace=*")
    for path in (b"/metrics/cadvisor", b"/sd/pods"):
        await asyncio.gather(*(world.plug(SCRAPE % (path, b"")) for _ in range(MANY)))
        await asyncio.sleep(4)
    query = b"/metrics/cadvisor?" + b"&".join(b"namespace=" + b"*a" * 110 for _ in range(60))
    await asyncio.gather(*(world.plug(SCRAPE % (query, b"")) for _ in range(MANY)))


def _pods(world):
    """60 MB of pods: some with 250 KB of annotations, some with 2,000 ports."""
    items = []
    for number in range(500):
        annotations = {f"k{n}": "x" * 4000 for n in range(50 if number % 2 else 1)}
        ports = [{"containerPort": n} for n in range(1, 2000 if number % 8 == 0 else 3)]
        items.append(
            {
                "metadata": {
                    "name": f"p{number}",
                    "namespace": "payments",
                    "annotations": annotations,
                },
                "spec": {"containers": [{"name": "c", "ports": ports}]},
                "status": {"podIP": "10.0.0.1"},
            }
        )
    body = json.dumps({"kind": "PodList", "items": items}).encode()
    world.node.serve(body, "/pods", kind="application/json")


async def targets(world):
    """A node's 60 MB list of pods, several times, for eight requests at once."""
    _pods(world)
    await world.start("--discovery", "--discovery-refresh-interval=1s")
    for _ in range(2):
        await world.scrape("/sd/pods")
        await asyncio.sleep(1)
    assert (await world.get("/sd/pods"))[0] == "200"


async def pods(world):
    """Pods of 8 MiB: as many owners, labels and containers as they can have, and as are refused."""
    await world.start("--discovery", "--discovery-refresh-interval=1s", "--workload")
    world.node.serve(PLAIN)
    for body, is_taken in zip(hostile_pods(), (False, False, False, True), strict=True):
        world.node.serve(body, "/pods", kind="application/json")
        assert ((await world.get("/sd/pods"))[0] == "200") is is_taken
        await world.get()
        await asyncio.sleep(1)


async def nodes(world):
    """1,000 Nodes of 64 KB each, names of missing nodes, and unreachable addresses."""
    for number in range(1000):
        world.cluster.api.store.put(
            "nodes",
            {
                "kind": "Node",
                "metadata": {
                    "name": f"n{number}",
                    "annotations": {f"k{n}": "x" * 4000 for n in range(16)},
                },
                "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.9"}]},
            },
        )
    await world.start("--all-nodes", "--discovery", own_node=False)
    assert await world.scrape("/sd/nodes") == ["200"] * SCRAPES
    for number in range(300):
        name = f"{number}" + "x" * 200
        await world.get(f"/api/v1/nodes/{name}/proxy/metrics/cadvisor")


async def errors(world):
    """Error bodies of 60 MB from the kubelet and the API server."""
    await world.start("--discovery", "--authorization=kubernetes")
    good = f"Authorization: {token(world.cluster)}\r\n".encode()
    world.node.status = b"500 Internal Server Error"
    for path in ("/metrics/cadvisor", "/pods"):
        world.node.serve(b"x" * (60 << 20), path)
    await world.scrape(headers=good)
    await world.scrape("/sd/pods", headers=good)
    world.node.status = b"403 Forbidden"
    await world.scrape("/sd/pods", headers=good)


async def files(world):
    """A pin file and a label snapshot, both of the maximum length."""
    _fill(world, 1100, 10)
    snapshot = world.folder / "labels"
    flags = ("--label=*", "--annotation=*", f"--label-snapshot={snapshot}", "--kubelet-tls-pin")
    await world.start(*flags, own_node=False)
    async with asyncio.timeout(60):
        while not snapshot.exists():  # noqa: ASYNC110 - a file does not tell
            await asyncio.sleep(0.05)
    world.note("files")
    world.process.kill()
    await world.process.wait()
    _write_pins(Path(f"{snapshot}.kubelet-pins"))
    await world.start(*flags, own_node=False)
    await world.scrape()


def _write_pins(path):
    lines = (b"uid:%036d %064x node-%d\n" % (n, n, n) for n in range(17_000))
    path.write_bytes(HEAD + b"".join(lines))
    path.chmod(0o600)


async def at_once(world):
    """Five scrapes with removed labels, floods, clients that never read, 1,100 large namespaces."""
    _fill(world, 1100, 10)
    world.node.serve(numbered('m{{namespace="n{}",id="/a",pod="p"}} 1\n', 40_000), packed=True)
    _pods(world)
    await world.start(
        *("--label=*", "--annotation=*", "--discovery", "--drop-label=pod"),
        f"--label-snapshot={world.folder / 'labels'}",
    )
    behind = [each for name, each in ATTACKS.items() if "behind" not in name]
    flood = asyncio.gather(*(world.attack(each) for each in behind[:4]))
    plugs = asyncio.gather(*(world.plug(SCRAPE % (b"/sd/pods", b"")) for _ in range(20)))
    await asyncio.gather(world.scrape(count=5), world.scrape("/sd/pods", count=3))
    await asyncio.gather(flood, plugs)
    await world.scrape(count=5)


CASES = {
    each.__name__.replace("_", " "): each
    for each in (
        nothing, answers, names, series, tenants, namespaces, callers, passwords, heads, readers,
        targets, pods, nodes, errors, files, at_once,
    )
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_peak_memory(world, case):
    """The peak stays under the limit, and the daemon is alive."""
    await CASES[case](world)
    await healthy(world.telemetry)
    world.note(case)
    assert FIGURES[case] < (TOGETHER if case in {"at once", "pods"} else LIMIT)


def test_every_bound_has_its_case():
    """Each row of docs/bounds.md names a case, or `-` if no memory is bounded."""
    text = (ROOT / "docs/bounds.md").read_text("utf-8")
    tables = re.findall(r"^\| what \| (.*)\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == 7
    named = set()
    for head, rows in tables:
        assert head == "bound | beyond it | metric | case |"
        for row in rows.splitlines():
            case = row.split(" | ")[-1].removesuffix(" |")
            assert case in {*CASES, "-"}, row
            named.add(case)
    assert named - {"-"} == set(CASES) - {"nothing"}
    shown = re.findall(r"^\| ([a-z ]+) \| \d+ \|$", text, re.MULTILINE)
    assert shown == list(CASES)
