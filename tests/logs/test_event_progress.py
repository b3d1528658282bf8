"""Which events make a line, and the position, over lists, watches and restarts."""

import random

import pytest

from kmproxy.errors import PositionsError
from kmproxy.logs.event_progress import (
    MAX_LISTS,
    MAX_TEXT,
    Begun,
    EventPosition,
    EventProgress,
    Place,
    decode_positions,
    encode_positions,
)
from kmproxy.logs.event_text import Event
from kmproxy.logs.progress import Tally

OLDEST = 50
WALL = 10**18


def change(version, key="a/x", *, time=100):
    """A change of an event."""
    return Event(version, key, key.partition("/")[0], time, b"%d" % version, is_cut=False)


def begun(position=None):
    """The progress from a position on."""
    return EventProgress(position or EventPosition(), Tally(), OLDEST)


def listed(progress, version, *events, ends=True):
    """The versions that a list gives out."""
    progress.begin_list(version)
    given = [each.version for each in events if progress.list_event(each, 0.0, WALL)]
    if ends:
        progress.end_list()
    return given


def test_the_first_list():
    """Events that are too old are counted; the rest is given out; the list's version follows."""
    progress = begun()
    assert not progress.was_read
    assert listed(progress, 9, change(3, "a/1"), change(4, "a/2", time=1)) == [3]
    assert progress.tally.lost == {"too_old": 1}
    assert progress.version == 9


def test_a_later_list():
    """Only the changes since the position, also if they are old."""
    progress = begun(EventPosition(Place(5)))
    assert listed(progress, 9, change(5, "a/1"), change(7, "a/2", time=1)) == [7]
    assert progress.found == 1
    assert progress.tally.lost == {}


def test_a_watch():
    """Each change once; a bookmark or the end of an event moves the position only."""
    progress = begun(EventPosition(Place(5)))
    assert progress.change(change(5), 0.0, WALL) is None
    assert progress.change(change(6), 0.0, WALL) is not None
    progress.reach(8)
    progress.reach(7)
    assert progress.version == 8


def test_a_slow_tenant():
    """It holds the place of its namespace before its first line, and no other one."""
    progress = begun(EventPosition(Place(5)))
    _, first = progress.change(change(6, "a/x"), 1.0, WALL)
    progress.change(change(7, "b/x"), 2.0, WALL)
    _, third = progress.change(change(8, "b/y"), 3.0, WALL)
    progress.acknowledge(third)  # it stands for the one before it in its namespace, too
    assert progress.position == EventPosition(Place(8), {"a": Place(5)}, newest=100)
    assert progress.position.version == 5
    assert progress.waiting_since == 1.0
    after = begun(progress.position)
    assert [each.version for each in map(change, (6, 7, 8, 9), ("a/x", "b/x", "b/y", "a/z"))
            if after.change(each, 0.0, WALL)] == [6, 9]  # fmt: skip
    progress.acknowledge(first)
    assert progress.position == EventPosition(Place(8), newest=100)
    assert (progress.waiting_since, len(progress)) == (None, 0)


def test_a_list_that_begins_anew():
    """The events that the first one has given are left out, unless they have changed since."""
    progress = begun(EventPosition(Place(5)))
    assert listed(progress, 9, change(7, "a/1"), change(8, "a/2"), ends=False) == [7, 8]
    again = (change(7, "a/1"), change(11, "a/2"), change(9, "a/3"))
    assert listed(progress, 12, *again) == [11, 9]
    assert progress.version == 12


def test_a_restart_in_a_list():
    """The same for the next process, from the position of the acknowledged lines."""
    progress = begun()
    progress.begin_list(9)
    marks = [progress.list_event(change(n, f"a/{n}"), 0.0, WALL)[1] for n in (3, 4, 5)]
    progress.acknowledge(marks[1])
    text = encode_positions({"": progress.position})
    after = begun(decode_positions(text)[""])
    assert after.version == 0
    assert listed(after, 10, *(change(n, f"a/{n}") for n in (3, 4, 5))) == [5]


def test_lists_that_get_less_far():
    """Each remembers what it gave; a list that got further replaces the others."""
    progress = begun(EventPosition(Place(1)))
    for number, end in enumerate("fdb", 10):
        listed(progress, number, change(number, "a/a"), change(5, f"a/{end}"), ends=False)
    keys = [each.key for each in progress.position.place.begun]
    assert keys == ["a/f", "a/d", "a/b"]
    events = (change(12, "a/b"), change(10, "a/e"), change(5, "a/g"))
    assert listed(progress, 13, *events, ends=False) == [5]
    assert [each.key for each in progress.position.place.begun] == ["a/g"]


def test_too_many_lists_without_an_end():
    """They are bounded."""
    progress = begun(EventPosition(Place(1)))
    for number in range(25):
        listed(progress, 100 + number, change(50, f"a/{chr(122 - number)}"), ends=False)
    assert len(progress.position.place.begun) == MAX_LISTS


def test_a_list_without_an_order():
    """A key then says nothing: the list is not remembered, and nothing is left out."""
    progress = begun(EventPosition(Place(1)))
    listed(progress, 9, change(5, "a/z"), change(6, "a/b"), change(7, "a/x"), ends=False)
    assert progress.position.place.begun == ()
    assert listed(progress, 10, change(8, "a/c")) == [8]


def test_a_restored_backup():
    """Versions begin anew: times tell what was sent."""
    progress = begun(EventPosition(Place(1000), newest=200))
    assert progress.begin_list(500)
    assert progress.list_event(change(400, "a/1", time=200), 0.0, WALL) is None
    assert progress.list_event(change(499, "a/2", time=201), 0.0, WALL) is not None
    progress.end_list()
    assert progress.version == 500
    assert progress.tally.lost == {}
    assert not progress.begin_list(501)


def test_a_time_in_the_future():
    """It does not make later events seem old after a restored backup."""
    progress = begun(EventPosition(Place(5)))
    progress.change(change(6, time=10**19), 0.0, 1000)
    assert progress.position.newest == 1000


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", '{"format":2,"positions":{}}', '{"format":1,"positions":{"":{"place":{"version":-1}}}}',
        '{"format":1,"positions":{"":{"newest":-1}}}', '{"format":1,"positions":{"":{"place":{"begun":[[0,"a"]]}}}}',
        '{"format":1,"positions":{"":{"behind":{"a":{"begun":[[1,"%s"]]}}}}}' % ("a" * 5000), "\ud800", "[" * 100_000,
        '{"format":1,"positions":{"":{"place":{"version":99999999999999999999}}}}',
    ],
)  # fmt: skip
def test_damaged_positions(text):
    """A text that this program cannot have written is refused."""
    with pytest.raises(PositionsError):
        decode_positions(text)


def test_long_positions():
    """The lowest version stays, which may repeat lines and loses none; then it is an error."""
    behind = {f"{n:060d}": Place(n + 3, (Begun(n + 9, "k" * 60),)) for n in range(2000)}
    found = decode_positions(encode_positions({"": EventPosition(Place(7000), behind, 5)}))
    assert found[""] == EventPosition(Place(3), newest=5)
    with pytest.raises(PositionsError):
        encode_positions({f"{n:0200d}": EventPosition() for n in range(MAX_TEXT // 200)})


class World:
    """An API server's events, a process that reads them, and an endpoint that takes lines."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.version = 10
        self.history = []
        self.state = {}
        self.progress = begun()
        self.open = []  # the lines that were not taken, with their marks
        self.given = []
        self.is_listed = False
        for _ in range(4):
            self.write()

    def write(self):
        self.version += self.chance.randint(1, 3)
        made = change(self.version, f"{self.chance.choice('abc')}/{self.chance.choice('uvwxyz')}")
        self.history.append(made)
        self.state[made.key] = made

    def give(self, each, made):
        if made is not None:
            self.given.append(each.version)
            self.open.append((each.version, made[1]))

    def list(self, *, cut=False):
        self.progress.begin_list(self.version)
        events = sorted(self.state.values(), key=lambda each: each.key)
        stop = self.chance.randrange(len(events)) if cut else len(events)
        for each in events[:stop]:
            self.give(each, self.progress.list_event(each, 0.0, WALL))
        if not cut:
            self.progress.end_list()
        self.is_listed = not cut

    def cut(self):
        self.list(cut=True)

    def watch(self):
        if not self.is_listed:
            return
        rest = [each for each in self.history if each.version > self.progress.version]
        for each in rest[: self.chance.randrange(len(rest) + 1)]:
            self.give(each, self.progress.change(each, 0.0, WALL))

    def take(self):
        """The endpoint takes the first lines of a namespace; another one may be slow."""
        if self.open:
            _, mark = self.chance.choice(self.open)
            self.progress.acknowledge(mark)
            self.open = [
                each
                for each in self.open
                if each[1].namespace != mark.namespace or each[1].number > mark.number
            ]

    def kill(self):
        """The next process goes on. Lines that were not taken come again."""
        saved = decode_positions(encode_positions({"": self.progress.position}))[""]
        again = {version for version, _ in self.open}
        self.given = [each for each in self.given if each not in again]
        self.open = []
        self.progress = begun(saved)
        self.is_listed = saved.version > 0


STEPS = ["write", "write", "list", "cut", "watch", "watch", "watch", "take", "take", "kill"]


@pytest.mark.parametrize("seed", range(100))
def test_each_change_once(seed):
    """Whatever the order of changes, lists, watches, answers of the endpoint and restarts.

    No line that was taken comes again, whatever other namespaces wait for. Each event's last change
    comes; and if no list is needed after the lines of the first one were taken, each change.
    """
    world = World(seed)
    steps = [each for each in STEPS if seed % 2 or each not in {"list", "cut"}]
    world.list(cut=bool(seed % 3 == 0))
    if not world.is_listed:
        world.list()
    first = set(world.given)
    while world.open and seed % 2 == 0:
        world.take()
    for _ in range(60):
        getattr(world, world.chance.choice(steps))()
        assert len(world.given) == len(set(world.given)), "a line came twice"
    if not world.is_listed:
        world.list()
    for each in world.history:
        if each.version > world.progress.version:
            world.give(each, world.progress.change(each, 0.0, WALL))
    assert len(world.given) == len(set(world.given)), "a line came twice"
    assert {each.version for each in world.state.values()} <= set(world.given)
    if not seed % 2:
        later = {each.version for each in world.history if each.version > max(first)}
        assert later <= set(world.given)
