"""Writing the label snapshot: no full, shared or hanging disk stops the daemon."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading

import pytest

from kmproxy.labels import snapshot
from tests.conftest import until
from tests.support.label_snapshots import BACK, LINE, MOVED, loaded, written
from tests.support.process import in_a_pod


async def test_a_full_disk(front, cluster, tmp_path, soon, monkeypatch, caplog):
    """The last whole snapshot stays, scrapes go on, and a metric counts; later it is written."""
    file = tmp_path / "labels"
    proxy = await front(f"--label-snapshot={file}")
    await written(file)
    before = file.read_bytes()

    def fsync(_):  # which is where a file system that allocates late says so
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", fsync)
        cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})

        async def counted():
            return await proxy.metric("kmproxy_snapshot_errors_total", operation="write") > 1

        await until(counted)
        assert file.read_bytes() == before
        assert list(tmp_path.glob("labels?*")) == []
        assert "No space left on device" in caplog.text
        assert LINE.format("backend") in (await proxy.get())[1]
    await written(file, MOVED)


async def test_two_daemons_and_one_file(front, cluster, tmp_path, soon, monkeypatch):
    """While one writes another replaces the file, as during a rollout: each writes its own."""
    file = tmp_path / "labels"
    writes, go_on, synced = threading.Event(), threading.Event(), os.fsync

    def fsync(descriptor):
        if not writes.is_set():
            writes.set()
            assert go_on.wait(60)
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    first = await front(f"--label-snapshot={file}")
    await until(lambda: asyncio.to_thread(writes.wait, 1))
    cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})
    second = await front(f"--label-snapshot={file}")
    await written(file, MOVED)
    file.unlink()
    go_on.set()
    await written(file)
    for proxy in (first, second):
        assert await proxy.metric("kmproxy_snapshot_errors_total", operation="write") == 0
        await proxy.daemon.stop()
    assert list(tmp_path.glob("labels?*")) == []


async def test_what_killed_writers_left(front, tmp_path):
    """Their new files, once they are old, are removed; those of whoever writes now are not."""
    file = tmp_path / "labels"
    names = (
        "labels.new-abcdefgh",
        "labels.new-12345678",
        "labels.new",
        "labels.old",
        "other.new-a",
    )
    for name in names:
        (tmp_path / name).touch()
        if name != "labels.new-12345678":
            os.utime(tmp_path / name, (0, 0))
    await front(f"--label-snapshot={file}")
    await written(file)
    left = {path.name for path in tmp_path.iterdir() if path.name in names}
    assert left == {*names} - {"labels.new-abcdefgh"}


async def test_a_disk_that_hangs(front, cluster, tmp_path, soon, monkeypatch):
    """One thread waits for it and no scrape does; later it is written."""
    file = tmp_path / "labels"
    hangs, back = threading.Event(), threading.Event()

    def fsync(_):
        hangs.set()
        assert back.wait(60)

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", fsync)
        proxy = await front(f"--label-snapshot={file}")
        await until(lambda: asyncio.to_thread(hangs.wait, 1))
        for team in ("one", "two", "backend"):
            cluster.api.namespaces.apply("frontend-service2", {"team": team})

            async def moved(team=team):
                return LINE.format(team) in (await proxy.get())[1]

            await until(moved)
        assert [thread.name for thread in threading.enumerate()].count("label-snapshot") == 1
        assert await proxy.metric("kmproxy_snapshot_saved_timestamp_seconds") == 0
        assert not file.exists()
    back.set()
    await written(file, MOVED)


HANGS = """
import os, sys, threading
really = os.open

def hang(path, *rest):
    if not rest[0] & os.O_NOFOLLOW:
        return really(path, *rest)
    os.mkdir(f"{path}-asked")
    threading.Event().wait()

os.fsync = lambda _: threading.Event().wait()
os.open = hang
from kmproxy.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("operation", ["read", "write"])
async def test_sigterm_while_the_disk_hangs(cluster, tmp_path, operation):
    """The process ends all the same, with the labels unwritten, or still unread."""
    file = tmp_path / "labels"
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    if operation == "read":
        await cluster.api.stop()

    async def hangs():
        return list(tmp_path.glob("labels?*"))

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGS, *flags, f"--label-snapshot={file}", env=environment
    )
    try:
        await until(hangs, 20)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(("step", "operation"), [("encode", "write"), ("decode", "read")])
async def test_a_fault_of_our_own(
    front, cluster, tmp_path, soon, monkeypatch, caplog, step, operation
):
    """What nobody foresaw is told with all that is known of it, counted, and passes."""
    file = tmp_path / "labels"
    if operation == "read":
        first = await front(f"--label-snapshot={file}")
        await written(file)
        await first.daemon.stop()
        await cluster.api.stop()

    def fail(*_, **__):
        raise RuntimeError("planted")

    with monkeypatch.context() as broken:
        broken.setattr(snapshot, step, fail)
        proxy = await front(f"--label-snapshot={file}", loaded=False)

        async def counted():
            return await proxy.metric("kmproxy_snapshot_errors_total", operation=operation) > 0

        await until(counted)
    assert [record.exc_info for record in caplog.records if "fault" in record.message]
    assert "RuntimeError: planted" in caplog.text
    if operation == "read":
        await cluster.api.start()
        await until(lambda: loaded(proxy), BACK)
    cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})
    await written(file, MOVED)


async def test_an_end_in_whatever_state(front, tmp_path, monkeypatch):
    """What has ended the keeping of labels does not keep the daemon from ending."""

    async def die(_):
        raise RuntimeError("planted")

    monkeypatch.setattr(snapshot.LabelSnapshot, "save", die)
    proxy = await front(f"--label-snapshot={tmp_path / 'labels'}")
    await proxy.daemon.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)


async def test_the_last_change_is_kept(front, cluster, tmp_path):
    """What has changed since the last write is written at the end."""
    file = tmp_path / "labels"
    proxy = await front(f"--label-snapshot={file}")
    await written(file)
    cluster.api.namespaces.apply("frontend-service2", {"team": "backend"})

    async def moved():
        return LINE.format("backend") in (await proxy.get())[1]

    await until(moved)
    assert MOVED not in file.read_bytes()
    await proxy.daemon.stop()
    await written(file, MOVED)
