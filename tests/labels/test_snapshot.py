"""The label map on disk: what is kept, what is refused, and when it is used."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import signal
import sys
import threading

import pytest

from kmproxy.config.label_rules import LabelRule, Namespace
from kmproxy.errors import SnapshotError, StartupError
from kmproxy.labels import snapshot
from kmproxy.labels.label_map import LabelMap, Restored
from kmproxy.labels.rendering import KnownLabels
from kmproxy.labels.snapshot import MAX_AGE, Origin, decode, encode
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.cluster import SimCluster
from tests.conftest import until
from tests.support.process import in_a_pod

RULES = (LabelRule("label", "team", "team", "nobody"), LabelRule("annotation", "*", ""))
SERVER = "https://10.96.0.1:443"
ORIGIN = Origin(SERVER, "1234")
STATE = (
    KnownLabels("a", {"team": 'x\\n"\u00e9\n'}),
    KnownLabels("b", {"x": "1"}, ("team",), 2, 1, deleted=100.0),
)
NOW = 1_700_000_000.0
RENDERED = {b"a": ',team="x\\\\n\\"\u00e9\\n"'.encode(), b"b": b',x="1"'}
LINE = 'namespace="frontend-service2",team="{}"'
MOVED = b'["frontend-service2",{"team":"backend"}'
BACK = 60.0  # seconds: the API server is asked again after up to half of them


def encoded(state=STATE, rules=RULES, origin=ORIGIN, confirmed=NOW, written=NOW):
    """A snapshot of the labels above."""
    return b"".join(encode(state, LabelMap(rules), origin, confirmed=confirmed, written=written))


def decoded(data, now=NOW, labels=None):
    """What a map with the rules above knows after a snapshot, and its age."""
    restored, age = decode(io.BytesIO(data), labels or LabelMap(RULES), ORIGIN, now)
    return restored.listing.rendered, restored.left, age


def test_what_is_kept_comes_back():
    """Labels, what is left of a deleted namespace's time, and the age."""
    assert decoded(encoded()) == (RENDERED, {b"b": 100.0}, 0.0)
    assert decoded(encoded(), NOW + 60.5) == (RENDERED, {b"b": 39.5}, 60.5)
    assert decoded(encoded(), NOW + 300)[1] == {b"b": 0.0}


def test_what_is_written_long_after_it_was_confirmed():
    """The API server being away, labels grow old, but a deleted namespace keeps its time."""
    assert decoded(encoded(written=NOW + 200), NOW + 210)[1:] == ({b"b": 90.0}, 210)


def test_a_clock_that_went_back():
    """What seems to be from the future is taken for new."""
    assert decoded(encoded(), NOW - 1e9) == (RENDERED, {b"b": 100.0}, 0.0)


def test_a_file_has_a_longest(monkeypatch):
    """What would be longer is not written: its volume has a limit, past which a pod is evicted."""
    monkeypatch.setattr(snapshot, "MAX_FILE", snapshot.MAX_HEAD + len(encoded()))
    encoded()
    with pytest.raises(SnapshotError, match="over"):
        encoded(state=STATE * 9)


def test_every_damage_is_found():
    """No byte can change, no end be missing."""
    data = encoded()
    for at in range(len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(SnapshotError):
            decoded(bytes(damaged))
        with pytest.raises(SnapshotError):
            decoded(data[:at])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a label snapshot"),
        (b"apiVersion: v1\nkind: Secret\n", "not a label snapshot"),
        (encoded().replace(b" 3 ", b" 2 ", 1), "another version"),
        (encoded(origin=Origin("https://other", "1234")), "another API server, 'https://other"),
        (encoded(origin=Origin(SERVER, "5678")), "another cluster's, or of before its CA changed"),
        (encoded(origin=Origin(SERVER, "")), "another cluster's, or of before its CA changed"),
        (encoded(rules=RULES[:1]), "other label rules"),
        (encoded(confirmed=NOW - MAX_AGE - 1), "24 hours old"),
    ],
)
def test_what_is_refused(data, says):
    """A snapshot of something else, or of long ago, is not used, and why is said."""
    with pytest.raises(SnapshotError, match=says):
        decoded(data)


def test_a_restored_map_is_the_same():
    """It answers as the first, forgets when the first would, and can be changed."""
    first = LabelMap(RULES[:1])
    first.replace([Namespace("a", {"team": "x"}), Namespace("b", {"team": "y"})], 0)
    first.delete("b", 10)
    second = LabelMap(RULES[:1])
    second.restore(second.rendered_anew(first.state(110)), 5000)
    assert repr(second) == repr(first)
    assert [second.lookup(name) for name in (b"a", b"b", b"c")] == [
        b',team="x"', b',team="y"', b',team="nobody"',
    ]  # fmt: skip
    second.expire(5199)
    assert second.lookup(b"b") == b',team="y"'
    second.expire(5200)
    assert second.lookup(b"b") == b',team="nobody"'


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda m: m.put(Namespace("a", {"team": "y"})), True),
        (lambda m: m.put(Namespace("a", {"team": "x", "other": "z"})), False),
        (lambda m: m.put(Namespace("c")), True),
        (lambda m: m.delete("a", 1), True),
        (lambda m: m.delete("c", 1), False),
        (lambda m: m.replace([Namespace("a", {"team": "x"})], 1), False),
        (lambda m: m.replace([], 1), True),
        (lambda m: m.expire(1e9), False),
    ],
)
def test_a_change_is_noticed(change, counts):
    """The number of a map moves with what it holds, and only with that."""
    labels = LabelMap(RULES[:1])
    labels.replace([Namespace("a", {"team": "x"})], 0)
    before = labels.changes
    change(labels)
    assert (labels.changes != before) == counts


@pytest.fixture
def soon(monkeypatch):
    """Writes follow changes at once."""
    monkeypatch.setattr(snapshot, "DELAY", 0.02)


async def written(file, holds=b"", seconds=5.0):
    """Wait until the file is there, with these bytes in it."""

    async def there():
        return file.exists() and holds in file.read_bytes()

    await until(there, seconds)


async def test_a_restart_while_the_api_server_is_away(front, cluster, tmp_path, soon):
    """The last labels are served and said to be old; the first list replaces them."""
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
    """What is written again while the API server is away is as old as before, and says so."""
    file = tmp_path / "labels"
    for passed in (0, 3600, 7200):
        proxy = await front(f"--label-snapshot={file}", wall=lambda now=NOW + passed: now)
        age = await proxy.metric("kmproxy_namespaces_sync_age_seconds")
        assert passed <= age < passed + 60
        await proxy.daemon.stop()
        assert b'"written":%.1f}' % (NOW + passed) in file.read_bytes()
        await cluster.api.stop()


async def test_an_api_server_that_hangs(front, cluster, tmp_path, soon, monkeypatch):
    """One that does not answer at all is away as well, after some patience."""
    monkeypatch.setattr(snapshot, "PATIENCE", 0.1)
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    cluster.api.fail("list", ApiFault.HANG)
    second = await front(f"--label-snapshot={file}")
    assert LINE.format("frontend") in (await second.get())[1]


async def test_an_api_server_that_hangs_and_a_short_wait_for_it(front, cluster, tmp_path, soon):
    """Where --cache-sync-timeout is shorter than that patience, there is still a start."""
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
    """Where the API server answers, no scrape ever shows what the snapshot says."""
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
    """A damaged one is no matter where the API server answers: it is replaced."""
    file = tmp_path / "labels"
    file.write_bytes(b"garbage")
    proxy = await front(f"--label-snapshot={file}")
    await written(file, b"frontend-service2")
    assert await proxy.metric("kmproxy_snapshot_errors_total") == 0


async def test_a_refusal_is_no_absence(front, cluster, tmp_path, soon):
    """Without the permission to list, the start fails as it does without a snapshot."""
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
    """It is refused with a line and a metric; nothing is served until the first list."""
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
    """As in pods, where it is that of the Service in most clusters: its labels are not served."""
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
    assert "it is another cluster's, or of before its CA changed" in caplog.text
    assert (await second.get())[0] == 503


async def test_a_ca_that_rotates(front, cluster, tmp_path, soon, monkeypatch):
    """The snapshot is written anew under the new one, and a start with that finds it good."""
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


def forge(file, how):
    """Make of a snapshot what only a stranger, or a link, can make of it."""
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
        ("link", "it is a symbolic link, which is not followed"),
        ("pipe", "it is not a regular file"),
        ("group", "others can write it (mode 0620)"),
        ("world", "others can write it (mode 0602)"),
        ("owner", "it belongs to another user"),
    ],
)
async def test_a_file_that_others_can_have_written(
    front, cluster, tmp_path, soon, caplog, how, says
):
    """It is refused with a line and a metric, and replaced by one of our own in time."""
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
        return not file.is_symlink() and file.is_file() and file.stat().st_mode & 0o777 == 0o600

    await until(ours)
    assert file.stat().st_uid == os.geteuid()


async def test_what_no_rule_makes_is_not_restored(front, cluster, tmp_path, soon, caplog):
    """A whole file with a right checksum is still not believed: its labels are rendered anew."""
    file = tmp_path / "labels"
    first = await front(f"--label-snapshot={file}")
    await written(file)
    await first.daemon.stop()
    head, _, body = file.read_bytes().partition(b"\n")
    body = body.replace(b'{"team":"payments"}', b'{"team\\":\\"x\\",other":"y"}')
    digest = hashlib.sha256(body).hexdigest().encode()
    file.write_bytes(b" ".join([*head.split(b" ")[:2], digest]) + b"\n" + body)
    await cluster.api.stop()
    second = await front(f"--label-snapshot={file}", loaded=False)

    async def refused():
        return await second.metric("kmproxy_snapshot_errors_total", operation="read") == 1

    await until(refused)
    assert "which no rule makes" in caplog.text


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


async def loaded(proxy):
    """Whether scrapes are served."""
    return (await proxy.get())[0] == 200


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
