"""`helm test` passes: the chart's pod for it, run in front of a simulated cluster."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from kmproxy.simulator.logs import SimLogs
from tests.support.charts import check_pod, ci_values, helm, parts, rendered
from tests.support.containers import environment, grant, mount
from tests.support.overlays import ROOT, file_of, of_kind
from tests.support.tls import Authority

pytestmark = [helm]

WAYS = ("daemonset", "deployment", "deployment-direct", "recommended", "central-secure", "tenants")


async def run(cluster, objects, folder, *arguments):
    """Runs `kmproxy check` with the rights, variables and files of the pod of `helm test`."""
    grant(cluster, objects)
    cluster.write_service_account(folder / "sa")
    if any("web.yml" in one["data"] for one in of_kind(objects, "ConfigMap")):
        mount(objects, folder, Authority())
    given = environment(cluster, objects, folder)
    if path := given.get("KMPROXY_CONFIG"):
        (folder / "etc/kmproxy/config").mkdir(parents=True)
        text = file_of(objects, path.removeprefix(str(folder)))
        (folder / "etc/kmproxy/config/config.yml").write_text(text, "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kmproxy", "check", *arguments, cwd=ROOT, env=given,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("way", WAYS)
async def test_helm_test_passes(cluster, tmp_path, way):
    """No row is failed, skipped or a warning, such as one of a right that is not needed."""
    values = ci_values(way)
    assert check_pod(values)
    status, out, err = await run(cluster, rendered(values), tmp_path)
    assert (status, err) == (0, ""), out
    rows = out.partition("\n✓ identity")[2].splitlines()[1:]
    assert len(rows) > 5
    assert {row[0] for row in rows if row} == {"✓"}, out


@pytest.mark.parametrize("way", ["logs", "logs-api"])
async def test_helm_test_of_logs_passes(cluster, tmp_path, way):
    """The pod for `kmproxy logs` has the rights, and reads a log."""
    values = ci_values(way)
    values["logs"]["serviceAccount"] = {"name": "kmproxy"}  # that of the simulated cluster
    values["logs"]["replicaCount"] = 1  # else the only pod may belong to the other shard
    values["logs"]["config"] = {"namespace": ["payments"], "container": ["app"]}
    assert check_pod(values, "--logs")
    with SimLogs(tmp_path / "log") as logs:
        cluster.show_logs("node-a", logs)
        logs.start("payments", "web-0").containers["app"].write("hello")
        status, out, err = await run(cluster, parts(values)[1], tmp_path, "--logs")
    assert re.search(r"web-0/app (was|were) read", out), out
    assert (status, err) == (0, ""), out
    rows = out.partition("\n✓ identity")[2].splitlines()[1:]
    assert len(rows) > 4
    assert {row[0] for row in rows if row} == {"✓"}, out


async def test_helm_test_of_events_passes(cluster, tmp_path):
    """The pod for events has the rights, and asks no kubelet."""
    values = ci_values("logs-events") | {"namespaceOverride": "kmproxy"}
    values["events"]["serviceAccount"] = {"name": "kmproxy"}
    status, out, err = await run(cluster, parts(values)[1], tmp_path, "--logs")
    assert "kmproxy/kmproxy-logs-events is not there yet" in out
    assert (status, err) == (0, ""), out
    rows = out.partition("\n✓ identity")[2].splitlines()[1:]
    assert {row[0] for row in rows if row} == {"✓"}, out


async def test_helm_test_fails_without_a_right(cluster, tmp_path):
    """With `rbac.create=false` and no other role, it says which rule is missing."""
    objects = rendered(ci_values("daemonset") | {"rbac": {"create": False}})
    status, out, _ = await run(cluster, objects, tmp_path)
    assert status == 1
    assert "✗ list namespaces" in out
    assert "resources: [nodes/metrics]" in out
