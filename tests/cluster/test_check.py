"""`kmproxy check` as each overlay's service account, reviewed by a real API server."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmproxy.kube.permissions import needed, rules
from tests.support.containers import environment, mount
from tests.support.overlays import OVERLAYS, built, configuration, of_kind
from tests.support.tls import Authority

from .control_plane import HOST
from .objects import apply, remove

pytestmark = [pytest.mark.cluster]

SPACE, ACCOUNT = "kmproxy-system", "kmproxy"
DIRECT = sorted(set(OVERLAYS) - {"deployment"})
"""The overlays that ask kubelets themselves. The API server's node proxy connects to no loopback
address, where all kubelets of these tests are."""


@pytest.fixture
async def kubelet(plane):
    """The kubelet of node-a, which reviews tokens at the real API server."""
    running = plane.kubelet("node-a", payments={"team": "payments"}, default={})
    await running.start()
    await asyncio.to_thread(plane.register, "node-a", running)
    await asyncio.to_thread(plane.namespace, "payments", team="payments")
    yield running
    await running.stop()


@pytest.fixture
async def check(plane, kubelet, tmp_path):
    """Applies an overlay and runs `kmproxy check` in its container's environment."""
    applied = []

    async def run(overlay, change=None, token=None):
        objects = copy.deepcopy(built(overlay))
        if change is not None:
            change(objects)
        applied.extend(objects)
        await asyncio.to_thread(apply, plane, objects)
        if overlay == "recommended":
            mount(objects, tmp_path, Authority())
        token = token or await asyncio.to_thread(plane.token, SPACE, ACCOUNT)
        plane.write_service_account(tmp_path / "sa", token)
        cluster = SimpleNamespace(
            kubelets={"node-a": kubelet}, api=SimpleNamespace(url=f"https://{HOST}:{plane.port}")
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kmproxy", "check", "--output=json",
            env=environment(cluster, objects, tmp_path), cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, json.loads(out)

    yield run
    await asyncio.to_thread(remove, plane, applied)


def rows(report, *results):
    """The rows of a report with these results, each as check, subject and message."""
    return [
        (row["check"], row["subject"], row["message"])
        for row in report["checks"]
        if row["result"] in results
    ]


@pytest.mark.parametrize("overlay", DIRECT)
async def test_an_overlay_has_all_that_it_needs(check, overlay):
    """Exit status 0, and no row is failed, skipped or a needless right."""
    status, report = await check(overlay)
    assert (status, rows(report, "failed", "warning", "skipped")) == (0, [])
    checked = {row["check"] for row in report["checks"]}
    assert {"permission", "namespaces", "metrics"} <= checked
    assert report["ok"]


async def test_the_overlay_of_the_node_proxy(check):
    """All rights are granted. Only the metrics fail: this API server cannot reach kubelets."""
    status, report = await check("deployment")
    assert status == 1
    assert {row[0] for row in rows(report, "failed")} == {"metrics"}
    granted = [row for row in report["checks"] if row["check"] == "permission"]
    assert {row["result"] for row in granted} == {"ok"}


def lacking():
    """Each overlay, with each permission that it needs."""
    for overlay in OVERLAYS:
        config, _ = configuration(built(overlay))
        for permission in needed(config):
            yield overlay, permission


def taken(permission):
    """Removes a permission from the roles of an overlay."""

    def change(objects):
        for role in of_kind(objects, "ClusterRole"):
            for rule in role["rules"]:
                if permission.resource in rule.get("resources", ()):
                    rule["verbs"] = [verb for verb in rule["verbs"] if verb != permission.verb]
            role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]

    return change


@pytest.mark.parametrize(("overlay", "permission"), list(lacking()), ids=str)
async def test_a_permission_that_is_taken_away(check, overlay, permission):
    """Exit status 1, with the row and exactly the rule that grants the right."""
    status, report = await check(overlay, change=taken(permission))
    assert status == 1
    missing = [row for row in rows(report, "failed") if row[0] == "permission"]
    assert [subject for _, subject, _ in missing] == [str(permission)]
    assert "not granted" in missing[0][2]
    assert report["rules_to_add"] == rules([permission])


@pytest.mark.parametrize("how", ["expired", "audience", "made up"])
async def test_a_token_that_is_not_accepted(check, plane, how):
    """Exit status 1 with the API server's 401, for old, foreign and missing tokens."""
    await asyncio.to_thread(plane.account, SPACE, ACCOUNT)
    good = await asyncio.to_thread(plane.token, SPACE, ACCOUNT)
    other = await asyncio.to_thread(plane.token, SPACE, ACCOUNT, audiences=["elsewhere"])
    token = {"expired": plane.expired(good), "audience": other, "made up": "made.up.token"}[how]
    status, report = await check("daemonset", token=token)
    assert status == 1
    failed = {row[0]: row[2] for row in rows(report, "failed")}
    assert "does not accept kmproxy's credentials (401)" in failed["namespaces"]
    assert token not in json.dumps(report)
