"""A start with a label snapshot: its labels are served until the API server answers."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from kmproxy.errors import StartupError
from kmproxy.labels import snapshot
from kmproxy.labels.label_map import LabelMap, Restored
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.cluster import SimCluster
from tests.conftest import until
from tests.support.label_snapshots import BACK, LINE, MOVED, NOW, loaded, written


async def test_a_restart_while_the_api_server_is_away(front, cluster, tmp_path, soon):
    """The last labels are served and marked as old. The first list replaces them."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    assert (await first.get())[0] == 200  # the kubelet reviews our token, and remembers it
    await written(file)
    assert file.stat().st_mode & 0o777 == 0o600
    without = await first.metric("kmproxy_namespaces_without_label", label="team")
    assert await first.metric("kmproxy_snapshot_saved_timestamp_seconds") > 1e9
    await first.daemon.stop()
    await cluster.api.stop()
    cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})
    second = await front(f"--label-snapshot={file}")
    assert LINE.format("frontend") in (await second.get())[1]
    assert (await second.probe("/readyz"))[0] == 200
    assert await second.metric("kmproxy_labels_restored") == 1
    assert await second.metric("kmproxy_namespaces") == 7
    assert await second.metric("kmproxy_namespaces_without_label", label="team") == without > 0
    assert await second.metric("kmproxy_namespaces_sync_age_seconds") < 60
    assert "the snapshot" in (await second.get("/"))[1]
    await cluster.api.start()
    await written(file, MOVED, BACK)

    async def listed():
        return LINE.format("backend") in (await second.get())[1]

    await until(listed)
    assert await second.metric("kmproxy_labels_restored") == 0
    assert "the snapshot" not in (await second.get("/"))[1]
    assert await second.metric("kmproxy_snapshot_errors_total") == 0


async def test_restarts_do_not_make_labels_younger(front, cluster, tmp_path):
    """A snapshot that is written again in an outage keeps its age."""
    file = tmp_path / "labels"
    for passed in (0, 3600, 7200):
        proxy = await front(f"--label-snapshot={file}", wall=lambda now=NOW + passed: now)
        age = await proxy.metric("kmproxy_namespaces_sync_age_seconds")
        assert passed <= age < passed + 60
        await proxy.daemon.stop()
        assert b'"written":%.1f}' % (NOW + passed) in file.read_bytes()
        await cluster.api.stop()


async def test_an_api_server_that_hangs(front, cluster, tmp_path, soon, monkeypatch):
    """An API server that never answers counts as away, after a while."""
    monkeypatch.setattr(snapshot, "PATIENCE", 0.1)
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    cluster.api.fail("list", ApiFault.HANG)
    second = await front(f"--label-snapshot={file}")
    assert LINE.format("frontend") in (await second.get())[1]


async def test_an_api_server_that_hangs_and_a_short_wait_for_it(front, cluster, tmp_path, soon):
    """With a shorter --cache-sync-timeout the daemon still starts."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    cluster.api.fail("list", ApiFault.HANG)
    flags = (f"--label-snapshot={file}", "--cache-sync-timeout=3s")
    second = await front(*flags, loaded=False)
    waiting = asyncio.create_task(second.daemon.wait(asyncio.Event()))
    await until(lambda: loaded(second))
    assert not waiting.done()
    waiting.cancel()


async def test_what_is_listed_wins(front, cluster, tmp_path, soon):
    """If the API server answers, no scrape shows labels of the snapshot."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})
    second = await front(f"--label-snapshot={file}", loaded=False)

    async def served():
        status, text = await second.get()
        assert LINE.format("frontend") not in text
        return status == 200

    await until(served)
    assert LINE.format("backend") in (await second.get())[1]
    assert not second.daemon._watcher.restore(Restored(LabelMap(()).listing(), {}), 0)
    assert LINE.format("backend") in (await second.get())[1]


async def test_a_snapshot_that_is_not_needed_is_not_read(front, tmp_path, soon):
    """If the API server answers, a damaged snapshot is only replaced."""
    file = tmp_path / "labels"
    file.write_bytes(b"garbage")
    proxy = await front(f"--label-snapshot={file}")
    await written(file, b"frontend-service2")
    assert await proxy.metric("kmproxy_snapshot_errors_total") == 0


async def test_a_refusal_is_no_absence(front, cluster, tmp_path, soon):
    """Without the permission to list, the start fails as without a snapshot."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    cluster.api.deny("list", "namespaces")
    second = await front(f"--label-snapshot={file}", "--cache-sync-timeout=1s", loaded=False)
    with pytest.raises(StartupError, match="forbids to list namespaces"):
        await second.daemon.wait(asyncio.Event())
    assert (await second.get())[0] == 503


@pytest.mark.parametrize("data", [b"garbage\n", None])
async def test_a_snapshot_that_cannot_be_used(front, cluster, tmp_path, data, caplog):
    """It is refused with a line and a metric. Nothing is served until the first list."""
    file = tmp_path / "labels"
    file.mkdir() if data is None else file.write_bytes(data)
    await cluster.api.stop()
    proxy = await front(f"--label-snapshot={file}", loaded=False)

    async def refused():
        return await proxy.metric("kmproxy_snapshot_errors_total", operation="read") == 1

    await until(refused)
    assert "is not used" in caplog.text
    assert (await proxy.get())[0] == 503
    await cluster.api.start()

    async def served():
        return (await proxy.get())[0] == 200

    await until(served, BACK)


async def test_another_cluster_at_the_same_address(front, cluster, tmp_path, soon, caplog):
    """Labels of another cluster are not served, though its Service address is the same."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    await cluster.api.stop()
    cluster.write_service_account(tmp_path / "other")
    async with SimCluster(nodes=()) as other:
        (tmp_path / "other" / "ca.crt").write_bytes(other.ca_pem)
    flags = (f"--label-snapshot={file}", f"--service-account-dir={tmp_path / 'other'}")
    second = await front(*flags, loaded=False)

    async def refused():
        return await second.metric("kmproxy_snapshot_errors_total", operation="read") == 1

    await until(refused)
    assert "the labels are of another cluster, or the cluster's CA has changed" in caplog.text
    assert (await second.get())[0] == 503


async def test_a_ca_that_rotates(front, cluster, tmp_path, soon, monkeypatch):
    """The snapshot is written again with the new CA, and is used at the next start."""
    monkeypatch.setattr(snapshot, "REFRESH", 0.0)
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    assert (await first.get())[0] == 200  # the kubelet reviews our token, and remembers it
    await written(file)
    async with SimCluster(nodes=()) as other:
        cluster.ca_pem += other.ca_pem
    cluster.write_service_account(tmp_path / "sa")
    await written(file, hashlib.sha256(cluster.ca_pem).hexdigest().encode())
    await first.daemon.stop()
    await cluster.api.stop()
    second = await front(f"--label-snapshot={file}")
    assert LINE.format("frontend") in (await second.get())[1]


def forge(file, how):
    """Changes a snapshot as only another user, or a link, could."""
    match how:
        case "link":
            file.rename(real := file.with_name("real"))
            file.symlink_to(real)
        case "pipe":
            file.unlink()
            os.mkfifo(file)
        case "group" | "world":
            file.chmod(0o620 if how == "group" else 0o602)
        case "owner":
            os.chown(file, os.geteuid() + 1, -1)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("link", "the file is a symbolic link, which kmproxy does not follow"),
        ("pipe", "the file is not a regular file"),
        ("group", "others can write the file (mode 0620)"),
        ("world", "others can write the file (mode 0602)"),
        ("owner", "the file belongs to another user"),
    ],
)
async def test_a_file_that_others_can_have_written(
    front, cluster, tmp_path, soon, caplog, how, says
):
    """It is refused with a line and a metric, and later replaced by an own file."""
    if how == "owner" and os.geteuid():
        pytest.skip("only root can give a file away")
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    forge(file, how)
    await cluster.api.stop()
    second = await front(f"--label-snapshot={file}", loaded=False)

    async def refused():
        return await second.metric("kmproxy_snapshot_errors_total", operation="read") == 1

    await until(refused)
    assert f"is not used: {says}" in caplog.text
    assert (await second.get())[0] == 503
    await cluster.api.start()
    await until(lambda: loaded(second), BACK)

    async def ours():
        if file.is_symlink() or not file.is_file():
            return False
        held = file.stat()
        return held.st_uid == os.geteuid() and held.st_mode & 0o777 == 0o600

    await until(ours)
