"""Memory for namespaces full of annotations, measured on a daemon in a process of its own."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import until
from tests.support.load import memory
from tests.support.process import in_a_pod
from tests.support.programs import free_port

LIMIT = 100  # MiB
BLOB = {"blob": "z" * 250_000}
CROWD = {f"k{number:03}": "z" * 1000 for number in range(250)}

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def peak(pid):
    """The peak memory of a process, in MiB."""
    return memory(pid, "VmHWM") / (1 << 20)


def labels(answer):
    """The labels on the samples of frontend-service2."""
    found = set(re.findall(r'namespace="frontend-service2"(.*?),pod="', answer[1]))
    pairs = min(found, key=len)
    assert ',team="two"' in pairs
    return pairs


@asynccontextmanager
async def ready(cluster, folder, *flags):
    """Starts a daemon with loaded namespaces; yields a function that reads from its ports."""
    environment, defaults = in_a_pod(cluster, folder)
    telemetry, metrics = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kmproxy", *defaults, f"--listen=127.0.0.1:{metrics}",
        f"--telemetry-listen=127.0.0.1:{telemetry}", "--cache-sync-timeout=100s", *flags,
        env=environment,
    )  # fmt: skip
    async with aiohttp.ClientSession() as session:

        async def get(path, port=metrics):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        async def loaded():
            assert process.returncode is None
            try:
                return (await get("/readyz", telemetry))[0] == 200
            except aiohttp.ClientError:
                return False

        try:
            await until(loaded, 100)
            yield process.pid, get
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@pytest.mark.parametrize("count", [400, 1100])
async def test_annotations_that_no_rule_names(cluster, tmp_path, count):
    """Lists of 100 and 275 MB and events of 250 KB pass through without staying in memory."""
    spaces = cluster.api.namespaces
    for number in range(count):
        spaces.apply(f"n{number}", {"team": "one"}, annotations=BLOB)
    async with ready(cluster, tmp_path, "--label=team") as (pid, get):
        for number in range(50):
            spaces.apply(f"n{number}", annotations=BLOB | {"turn": str(number)})
        spaces.apply("frontend-service2", {"team": "two"}, annotations=BLOB)

        async def moved():
            return 'namespace="frontend-service2",team="two"' in (await get("/metrics/cadvisor"))[1]

        await until(moved, 60)
        assert peak(pid) < LIMIT * 0.6


@pytest.mark.parametrize("annotations", [BLOB, CROWD])
async def test_annotations_that_every_rule_takes(cluster, tmp_path, annotations):
    """With `*`, targets and a snapshot, the limits per namespace and in total hold."""
    spaces = cluster.api.namespaces
    spaces.apply("frontend-service2", {"team": "two"}, annotations=annotations)
    for number in range(1100):
        spaces.apply(f"n{number}", {"team": "one"}, annotations=annotations)
    file = tmp_path / "labels"
    flags = ("--label=*", "--annotation=*", "--discovery", f"--label-snapshot={file}")
    async with ready(cluster, tmp_path / "sa", *flags) as (pid, get):

        async def written():
            return file.exists()

        await until(written)
        assert (await get("/sd/pods"))[0] == 200
        added = labels(await get("/metrics/cadvisor"))
        assert added
        before = peak(pid)
    await cluster.api.stop()
    async with ready(cluster, tmp_path / "sa", *flags) as (pid, get):
        assert labels(await get("/metrics/cadvisor")) == added
        assert max(before, peak(pid)) < LIMIT
