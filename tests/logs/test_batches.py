"""Batches of lines: when they are due, what they hold, and which lines wait."""

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmproxy.logs.batches import HOLD, MAX_TENANTS, RECHECK, Batches, BatchLimits
from kmproxy.logs.loki import body
from kmproxy.logs.queues import OVERHEAD
from kmproxy.logs.streams import StreamLabels, StreamOptions
from tests.support.log_endpoint import START, Reader, container, line


class Desk:
    """Batches with a clock, a label map and a reader of the test."""

    def __init__(self, limits=None, options=None):
        self.now = 100.0
        self.labels = {b"shop": b',team="a"', b"blog": b',team="b"'}
        self.counted = Counter()
        self.live = True
        self.notified = 0
        streams = StreamLabels(options or StreamOptions(), self.find, unknown=b',team="none"')
        self.batches = Batches(
            limits or BatchLimits(), streams, clock=lambda: self.now,
            count=lambda what, number: self.counted.update({what: number}),
            watched=lambda: self.live, notify=self.note,
        )  # fmt: skip
        self.reader = Reader(self.batches)

    def find(self, namespace):
        return self.labels.get(namespace)

    def note(self):
        self.notified += 1

    def add(self, *lines, **options):
        for each in lines:
            self.reader.add(each, **options)

    def texts(self):
        """The texts of the batches that are due, each of one tenant."""
        return {batch.tenant: texts_of(batch) for batch in self.batches.ready()}

    def end(self, batch):
        self.batches.settle(batch, batch.entries)
        self.batches.done(batch)


def texts_of(batch):
    """The texts of the entries, in their order."""
    return [json.loads(entry.value)[1] for entry in batch.entries]


BY_TEAM = StreamOptions(tenant_label="team")


def test_a_batch_is_due_after_a_time():
    """The first line counts, not the latest."""
    desk = Desk()
    desk.add(line("one"))
    assert desk.notified
    assert desk.batches.wait() == 1.0
    desk.now += 0.6
    desk.add(line("two", 1))
    assert desk.batches.wait() == pytest.approx(0.4)
    assert desk.texts() == {}
    desk.now += 0.5
    assert desk.texts() == {None: ["one", "two"]}
    assert desk.batches.wait() is None


def test_a_batch_is_due_at_a_size():
    """Of its JSON. The rest follows when the batch is done, at once if it is due."""
    desk = Desk(BatchLimits(size=5000))
    desk.add(*(line("x" * 90, number) for number in range(100)))
    sizes = []
    for _ in range(10):
        for batch in desk.batches.ready():
            assert len(body(batch.entries)) <= 5000
            sizes.append(len(batch.entries))
            desk.end(batch)
        desk.now += 1
    assert sum(sizes) == 100
    assert min(sizes[:-1]) > 20
    assert desk.reader.left == 0
    assert desk.batches.held == 0


def test_a_line_larger_than_a_batch():
    """It is a batch of its own."""
    desk = Desk(BatchLimits(size=1000))
    desk.add(line("a"), line("b" * 5000, 1), line("c", 2))
    found = []
    for _ in range(3):
        (batch,) = desk.batches.ready()
        found.append(len(batch.entries))
        desk.end(batch)
        desk.now += 2
    assert found == [1, 1, 1]


def test_one_batch_of_each_tenant():
    """A tenant's next batch waits for the one under way; another tenant's does not."""
    desk = Desk(options=BY_TEAM)
    blog = container(namespace="blog", uid="u2")
    desk.add(line("one"), line("two", 0, blog))
    desk.now += 1
    found = {batch.tenant: batch for batch in desk.batches.ready()}
    assert {tenant: texts_of(batch) for tenant, batch in found.items()} == {
        "a": ["one"],
        "b": ["two"],
    }
    desk.add(line("three", 3), line("four", 4, blog))
    desk.now += 5
    assert desk.texts() == {}
    desk.end(found["a"])
    assert desk.texts() == {"a": ["three"]}


def test_lines_of_a_container_stay_in_order():
    """Several containers take turns, and none of them is passed over."""
    desk = Desk(BatchLimits(size=900))
    several = [container(uid=f"u{number}", pod=f"p{number}") for number in range(3)]
    for number in range(12):
        desk.add(*(line(f"{each.uid}-{number}", number, each) for each in several))
    found = []
    desk.now += 1
    while len(desk.batches):
        for batch in desk.batches.ready():
            found += texts_of(batch)
            desk.end(batch)
    assert len(found) == 36
    for each in several:
        own = [text for text in found if text.startswith(each.uid)]
        assert own == [f"{each.uid}-{number}" for number in range(12)]
    assert {text[:2] for text in found[:30]} == {"u0", "u1", "u2"}


def test_labels_are_looked_up_when_a_batch_is_made():
    """A namespace that moves changes the stream of the next line, and its tenant."""
    desk = Desk(options=BY_TEAM)
    desk.add(line("one"))
    desk.labels[b"shop"] = b',team="b"'
    desk.now += 1
    assert desk.texts() == {}
    (batch,) = desk.batches.ready()
    assert batch.tenant == "b"
    assert json.loads(batch.entries[0].labels)["team"] == "b"
    desk.add(line("two", 1))
    desk.labels[b"shop"] = b',team="a"'
    desk.now += 1
    assert desk.texts() == {}  # its container's lines before are still under way
    desk.end(batch)
    assert desk.texts() == {"a": ["two"]}


def test_a_line_is_held_while_its_namespace_is_not_known():
    """And never sent without its labels and then with them."""
    desk = Desk()
    new = container(namespace="new")
    desk.add(line("one", 0, new))
    assert not desk.batches.takes(new)
    assert desk.batches.takes(container())
    desk.now += HOLD - 1
    assert desk.texts() == {}
    notified = desk.notified
    assert desk.texts() == {}
    assert desk.notified == notified  # or the sender would never rest
    assert desk.batches.wait() == RECHECK
    assert desk.batches.unlabelled == 1
    desk.labels[b"new"] = b',team="n"'
    assert desk.texts() == {None: ["one"]}
    assert desk.batches.takes(new)


def test_a_namespace_that_does_not_exist():
    """Its lines get the defaults, but only after a time in which namespaces were watched."""
    desk = Desk()
    desk.add(line("one", 0, container(namespace="gone")))
    desk.live = False
    desk.now += 10 * HOLD
    assert desk.texts() == {}
    desk.live = True
    assert desk.texts() == {}
    desk.now += HOLD
    (batch,) = desk.batches.ready()
    assert json.loads(batch.entries[0].labels)["team"] == "none"


def test_a_namespace_that_is_forgotten():
    """Its lines are held as those of a new one."""
    desk = Desk()
    desk.add(line("one"))
    del desk.labels[b"shop"]
    desk.now += 1
    assert desk.texts() == {}
    assert desk.batches.unlabelled == 1
    desk.now += HOLD
    assert desk.texts() == {None: ["one"]}


def test_lines_that_are_too_old():
    """They are counted, and acknowledged with the line before them, never before it."""
    desk = Desk()
    desk.add(line("old", time=START - 5), oldest=START)
    assert desk.reader.left == 0
    desk.add(line("one", 1), oldest=START)
    desk.add(line("old", time=START - 4), oldest=START)
    assert desk.reader.left == 3 - 1
    desk.now += 1
    (batch,) = desk.batches.ready()
    desk.add(line("old", time=START - 3), oldest=START)
    assert desk.reader.left == 3
    desk.add(line("two", 2), oldest=START)
    desk.end(batch)
    assert desk.reader.left == 1
    assert desk.counted == {"too_old": 3}
    desk.now += 1
    assert desk.texts() == {None: ["two"]}


def test_equal_lines_of_one_nanosecond():
    """Each is sent with a nanosecond of its own, over batches and pods of one stream, too."""
    desk = Desk()
    two = container(uid="u2", pod="web-2")
    desk.add(line("same"), line("same"), line("same", 0, two), line("other"))
    desk.now += 1
    (batch,) = desk.batches.ready()
    times = [json.loads(entry.value)[0] for entry in batch.entries]
    assert sorted(times) == [str(START), str(START), str(START + 1), str(START + 2)]
    desk.end(batch)
    desk.add(line("same", 0, two))
    desk.now += 1
    (batch,) = desk.batches.ready()
    assert json.loads(batch.entries[0].value)[0] == str(START + 3)
    assert desk.counted["moved"] == 3


def test_bytes_that_are_not_utf8_are_counted():
    """Once for each line."""
    desk = Desk()
    desk.add(line(b"a\xff\xff"), line(b"b", 1))
    desk.now += 1
    assert desk.texts() == {None: ["a\ufffd\ufffd", "b"]}
    assert desk.counted == {"not_utf8": 1}


def test_room():
    """What the lines take, until they are done with; a body under way counts, too."""
    desk = Desk(BatchLimits(buffer=100_000))
    assert desk.batches.room == 100_000
    desk.add(line("x" * 1000))
    assert desk.batches.room < 99_000 - OVERHEAD
    desk.now += 1
    (batch,) = desk.batches.ready()
    before = desk.batches.room
    desk.batches.weigh(batch, 500)
    assert desk.batches.room == before - 500
    desk.add(line("y" * 200_000, 1))
    assert desk.batches.room == 0
    desk.end(batch)
    assert desk.batches.room == 0
    desk.now += 1
    (batch,) = desk.batches.ready()
    desk.end(batch)
    assert desk.batches.room == 100_000


def test_a_batch_is_not_done_before_its_lines():
    """An error of the caller, which would lose lines."""
    desk = Desk()
    desk.add(line("one"), line("two", 1))
    desk.now += 1
    (batch,) = desk.batches.ready()
    desk.batches.settle(batch, batch.entries[:1])
    assert desk.reader.left == 1
    with pytest.raises(ValueError, match="only 1 lines were settled"):
        desk.batches.done(batch)


def test_the_number_of_tenants_is_bounded():
    """The lines of further ones wait until others are done."""
    spaces = [f"n{number}" for number in range(MAX_TENANTS + 1)]
    desk = Desk(options=BY_TEAM)
    desk.labels = {name.encode(): b',team="%b"' % name.encode() for name in spaces}
    desk.add(*(line("x", 0, container(namespace=name, uid=name)) for name in spaces))
    desk.now += 1
    found = [*desk.batches.ready()]
    assert len(found) == desk.batches.tenants == MAX_TENANTS
    assert desk.batches.unlabelled == 1
    desk.end(found[0])
    desk.now += 1
    assert [batch.tenant for batch in desk.batches.ready()] == [spaces[-1]]


@pytest.mark.parametrize("size", [0, 40, 2000])
def test_memory_is_what_is_counted(size):
    """The lines in memory take no more than `held` says, waiting or in a batch."""
    desk = Desk(BatchLimits(size=1 << 30))
    several = [container(uid=f"u{number}") for number in range(20)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200_000 // (size + 100)):
            desk.add(line(b"%0*d" % (size, number) if size else b"", number, several[number % 20]))
        waiting, _ = tracemalloc.get_traced_memory()
        assert waiting - before < desk.batches.held
        desk.now += 1
        (batch,) = desk.batches.ready()
        taken, _ = tracemalloc.get_traced_memory()
        assert taken - before < desk.batches.held + 200_000  # the last lines of streams
        assert batch.entries
    finally:
        tracemalloc.stop()


NAMES = st.sampled_from(["shop", "blog", "new"])
STEPS = st.one_of(
    st.tuples(st.just("add"), NAMES, st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("move"), NAMES, st.sampled_from([None, b"", b',team="a"', b',team="b"'])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, HOLD])),
    st.tuples(st.just("end"), st.integers(0, 5)),
)


def begin(desk, under_way, sent):
    """Note the batches that are due, and the container and number of each of their lines."""
    for batch in desk.batches.ready():
        assert batch.tenant not in {each.tenant for each in under_way}
        under_way.append(batch)
        owners = [entry.owner.container for entry in batch.entries]
        sent.extend(zip(owners, map(int, texts_of(batch)), strict=True))


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_any_order_of_events(steps):
    """Each line is in exactly one batch, in its container's order, and nothing is left over."""
    desk = Desk(BatchLimits(size=600), BY_TEAM)
    under_way, sent = [], []
    for number, (what, *rest) in enumerate(steps):
        match what:
            case "add":
                of = container(namespace=rest[0], uid=f"{rest[0]}{rest[1]}")
                desk.add(line(f"{number}", 0, of, time=START - rest[2]), oldest=START - 2)
            case "move":
                desk.labels[rest[0].encode()] = rest[1]
            case "wait":
                desk.now += rest[0]
            case "end" if under_way:
                desk.end(under_way.pop(rest[0] % len(under_way)))
        begin(desk, under_way, sent)
    desk.labels = dict.fromkeys((b"shop", b"blog", b"new"), b"")
    while len(desk.batches):
        desk.now += 1
        while under_way:
            desk.end(under_way.pop())
        begin(desk, under_way, sent)
    number = sum(step[0] == "add" for step in steps)
    assert desk.reader.left == 0
    assert desk.batches.held == 0
    assert desk.batches.room == desk.batches.limits.buffer
    assert len(sent) == number - desk.counted["too_old"]
    for of in {of for of, _ in sent}:
        own = [each for name, each in sent if name == of]
        assert own == sorted(set(own))
