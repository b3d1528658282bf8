"""The label snapshot's bytes: they come back whole, and every damage is refused."""

from __future__ import annotations

import hashlib
import io

import pytest

from kmproxy.config.label_rules import LabelRule
from kmproxy.errors import SnapshotError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels import snapshot
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.rendering import KnownLabels
from kmproxy.labels.snapshot import MAX_AGE, Origin, decode, encode
from tests.conftest import until
from tests.support.label_snapshots import NOW, written

RULES = (LabelRule("label", "team", "team", "nobody"), LabelRule("annotation", "*", ""))
SERVER = "https://10.96.0.1:443"
ORIGIN = Origin(SERVER, "1234")
STATE = (
    KnownLabels("a", {"team": 'x\\n"\u00e9\n'}),
    KnownLabels("b", {"x": "1"}, ("team",), 2, 1, deleted=100.0),
)
RENDERED = {b"a": ',team="x\\\\n\\"\u00e9\\n"'.encode(), b"b": b',x="1"'}


def encoded(state=STATE, rules=RULES, origin=ORIGIN, confirmed=NOW, written=NOW):
    """A snapshot of the labels above."""
    return b"".join(encode(state, LabelMap(rules), origin, confirmed=confirmed, written=written))


def decoded(data, now=NOW, labels=None):
    """The labels of a map after reading a snapshot, and their age."""
    restored, age = decode(io.BytesIO(data), labels or LabelMap(RULES), ORIGIN, now)
    return restored.listing.rendered, restored.left, age


def test_what_is_kept_comes_back():
    """Labels, the remaining time of a deleted namespace, and the age are restored."""
    assert decoded(encoded()) == (RENDERED, {b"b": 100.0}, 0.0)
    assert decoded(encoded(), NOW + 60.5) == (RENDERED, {b"b": 39.5}, 60.5)
    assert decoded(encoded(), NOW + 300)[1] == {b"b": 0.0}


def test_what_is_written_long_after_it_was_confirmed():
    """In an outage labels grow old, but the time of a deleted namespace does not run."""
    assert decoded(encoded(written=NOW + 200), NOW + 210)[1:] == ({b"b": 90.0}, 210)


def test_a_clock_that_went_back():
    """A snapshot from the future counts as new."""
    assert decoded(encoded(), NOW - 1e9) == (RENDERED, {b"b": 100.0}, 0.0)


def test_a_file_has_a_longest(monkeypatch):
    """A longer snapshot is not written: over its volume's limit a pod is evicted."""
    monkeypatch.setattr(snapshot, "MAX_FILE", snapshot.MAX_HEAD + len(encoded()))
    encoded()
    with pytest.raises(SnapshotError, match="over"):
        encoded(state=STATE * 9)


def test_every_damage_is_found():
    """Every changed byte and every missing end is detected."""
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
        (
            encoded(origin=Origin(SERVER, "5678")),
            "another cluster, or the cluster's CA has changed",
        ),
        (encoded(origin=Origin(SERVER, "")), "another cluster, or the cluster's CA has changed"),
        (encoded(rules=RULES[:1]), "the label rules have changed"),
        (encoded(confirmed=NOW - MAX_AGE - 1), "24 hours old"),
    ],
)
def test_what_is_refused(data, says):
    """A snapshot of another origin or age is refused with the reason."""
    with pytest.raises(SnapshotError, match=says):
        decoded(data)


def test_a_restored_map_is_the_same():
    """A restored map answers, forgets and changes as the first one."""
    first = LabelMap(RULES[:1])
    first.replace([ObjectMeta("a", {"team": "x"}), ObjectMeta("b", {"team": "y"})], 0)
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
        (lambda m: m.put(ObjectMeta("a", {"team": "y"})), True),
        (lambda m: m.put(ObjectMeta("a", {"team": "x", "other": "z"})), False),
        (lambda m: m.put(ObjectMeta("c")), True),
        (lambda m: m.delete("a", 1), True),
        (lambda m: m.delete("c", 1), False),
        (lambda m: m.replace([ObjectMeta("a", {"team": "x"})], 1), False),
        (lambda m: m.replace([], 1), True),
        (lambda m: m.expire(1e9), False),
    ],
)
def test_a_change_is_noticed(change, counts):
    """The change number of a map moves with its contents, and only with them."""
    labels = LabelMap(RULES[:1])
    labels.replace([ObjectMeta("a", {"team": "x"})], 0)
    before = labels.changes
    change(labels)
    assert (labels.changes != before) == counts


async def test_what_no_rule_makes_is_not_restored(front, cluster, tmp_path, soon, caplog):
    """A file with a right checksum is not trusted either: its labels are rendered again."""
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
    assert "no rule makes" in caplog.text
