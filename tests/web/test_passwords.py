"""Passwords: which users are admitted, how often a hash is computed, and what is remembered."""

from __future__ import annotations

import asyncio
import gc
import threading

import bcrypt
import pytest

from kmproxy.web import passwords
from kmproxy.web.passwords import (
    LONGEST,
    MAX_PER_ADDRESS,
    MAX_REMEMBERED,
    MAX_WAITING,
    BusyError,
    Passwords,
)
from tests.support.tls import HASHES


@pytest.fixture
def compared(monkeypatch):
    """Records every computed hash with its password."""
    seen = []
    check = bcrypt.checkpw

    def noted(password, hashed):
        seen.append((password, hashed, threading.current_thread() is threading.main_thread()))
        return check(password, hashed)

    monkeypatch.setattr(passwords.bcrypt, "checkpw", noted)
    return seen


@pytest.fixture
def verifier():
    """A verifier with a key of zeros."""
    verifier = Passwords(bytes(32))
    yield verifier
    verifier.close()


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("alice", b"alice", True),
        ("alice", b"bob", False),
        ("bob", b"alice", False),
        ("alice", b"", False),
        ("alice", b"alice\0", False),
        ("nobody", b"alice", False),
        ("", b"", False),
    ],
)
async def test_who_is_let_in(verifier, name, password, right):
    """The right user with the right password is admitted, the first time and later."""
    for _ in range(3):
        assert await verifier.verify(HASHES, name, password) is right


async def test_nobody_is_let_in_by_the_hash_of_nobody(verifier, monkeypatch):
    """The password of the dummy hash admits no user."""
    monkeypatch.setattr(passwords, "_nobody", lambda _: HASHES["alice"])
    assert not await verifier.verify({}, "mallory", b"alice")


def work(compared):
    """The total cost of the comparisons: each is two to the power of its hash's cost."""
    return sum(2 ** int(hashed.split(b"$")[2]) for _, hashed, _ in compared)


COSTS = {"cheap": 4, "usual": 6, "dear": 8}


@pytest.mark.parametrize("name", [*COSTS, "nobody", ""])
@pytest.mark.parametrize("password", [b"x", b"right", b"x" * 100])
async def test_nobody_takes_as_long(verifier, compared, name, password):
    """Every name, known or not, costs as much as the user with the most expensive hash."""
    users = {
        each: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for each, cost in COSTS.items()
    }
    right = password == b"right" and name in users
    assert await verifier.verify(users, name, password) is right
    assert work(compared) == 2**8


async def test_without_users_it_takes_as_long_as_usual(verifier, compared):
    """Without users a comparison has the usual cost."""
    assert not await verifier.verify({}, "nobody", b"x")
    assert work(compared) == 2**10


async def test_a_hash_that_is_none_takes_as_long(verifier, compared):
    """An invalid hash takes the same time."""
    users = {"bad": "$2y$04$" + "." * 53, "good": bcrypt.hashpw(b"", bcrypt.gensalt(6)).decode()}
    assert not await verifier.verify(users, "bad", b"x")
    assert work(compared) == 2**6


async def test_a_hash_is_computed_once(verifier, compared):
    """Once for each user and password, off the event loop. Yes and no are remembered."""
    for _ in range(3):
        await verifier.verify(HASHES, "alice", b"alice")
        await verifier.verify(HASHES, "alice", b"wrong")
    assert len(compared) == 2
    assert not any(on_the_loop for _, _, on_the_loop in compared)


async def test_one_comparison_under_way_for_each(verifier, compared):
    """Concurrent requests share one comparison."""
    answers = await asyncio.gather(*(verifier.verify(HASHES, "bob", b"bob") for _ in range(50)))
    assert answers == [True] * 50
    assert len(compared) == 1


async def test_who_leaves_does_not_end_it_for_others(verifier):
    """The first request is cancelled, the second still gets the result."""
    first = asyncio.create_task(verifier.verify(HASHES, "bob", b"bob"))
    await asyncio.sleep(0)
    second = asyncio.create_task(verifier.verify(HASHES, "bob", b"bob"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second


async def test_a_changed_hash_is_another_answer(verifier):
    """A password of the old hash is checked again against the new hash."""
    assert await verifier.verify(HASHES, "alice", b"alice")
    assert not await verifier.verify({"alice": HASHES["bob"]}, "alice", b"alice")
    assert not await verifier.verify({}, "alice", b"alice")


async def test_names_and_passwords_do_not_run_together(verifier):
    """`ab` with `c` is not `a` with `bc`."""
    hashed = bcrypt.hashpw(b"c", bcrypt.gensalt(4)).decode()
    assert await verifier.verify({"ab": hashed, "a": hashed}, "ab", b"c")
    assert not await verifier.verify({"ab": hashed, "a": hashed}, "a", b"bc")


@pytest.fixture
async def held(monkeypatch):
    """Comparisons that compute nothing: the order of names, and an event that releases them."""
    begun, free = [], threading.Event()

    def equal(password, _stored, _most):
        begun.append(password)
        free.wait(30)
        return password == b"right"

    monkeypatch.setattr(passwords, "_equal", equal)
    yield begun, free
    free.set()


def flood(verifier, number, address, *, first=0):
    """Many wrong passwords of one address at once."""
    return [
        asyncio.create_task(
            verifier.verify(HASHES, "alice", b"%b-%d" % (address.encode(), each), address=address)
        )
        for each in range(first, first + number)
    ]


async def ends(tasks):
    """The results: answers, and the classes of exceptions."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else each for each in results]


async def test_a_share_for_each_address(verifier, held):
    """An address has a bounded share of the queue. Its other requests are refused."""
    _, free = held
    tasks = flood(verifier, 20, "a")
    await asyncio.sleep(0.05)
    more = flood(verifier, 20, "a", first=20)
    await asyncio.sleep(0.05)
    free.set()
    found = await ends(tasks + more)
    assert found.count(False) == MAX_PER_ADDRESS + 1  # and the one that was under way
    assert found.count(BusyError) == 40 - MAX_PER_ADDRESS - 1


async def test_a_first_right_password_in_a_flood(verifier, held):
    """A new address has its turn after at most one more of each other address."""
    begun, free = held
    tasks = [task for address in "abcdefgh" for task in flood(verifier, 20, address)]
    await asyncio.sleep(0.05)
    right = asyncio.create_task(verifier.verify(HASHES, "alice", b"right", address="good"))
    await asyncio.sleep(0.05)
    free.set()
    assert await right
    assert begun.index(b"right") <= 9
    assert set(await ends(tasks)) == {False, BusyError}
    assert len(begun) <= MAX_WAITING + 2


async def test_who_has_left_is_not_compared_for(verifier, held):
    """A request that left takes no turn and no room."""
    begun, free = held
    for _ in range(50):
        tasks = flood(verifier, 4, "a")
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    right = asyncio.create_task(verifier.verify(HASHES, "alice", b"right", address="a"))
    await asyncio.sleep(0.05)
    free.set()
    assert await right
    assert len(begun) <= 2


async def test_the_same_again_at_once_after_leaving(verifier, held):
    """A repeated request has its own comparison, not the one that was dropped."""
    _, free = held
    tasks = flood(verifier, 1, "a")
    await asyncio.sleep(0.05)
    for _ in range(3):
        leaving = asyncio.create_task(verifier.verify(HASHES, "alice", b"right", address="b"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    right = asyncio.create_task(verifier.verify(HASHES, "alice", b"right", address="b"))
    await asyncio.sleep(0)
    assert "2 to come" in repr(verifier)
    free.set()
    assert await right
    await ends(tasks)


async def test_who_was_let_in_does_not_wait(verifier, held):
    """A remembered password does not wait in the queue."""
    _, free = held
    free.set()
    assert await verifier.verify(HASHES, "alice", b"right", address="a")
    free.clear()
    tasks = flood(verifier, 20, "a")
    await asyncio.sleep(0.05)
    assert await verifier.verify(HASHES, "alice", b"right", address="a")
    free.set()
    await ends(tasks)


async def test_the_end_with_some_that_wait(held):
    """Waiting requests end when the verifier ends."""
    _, free = held
    verifier = Passwords(bytes(32))
    tasks = flood(verifier, 3, "a")
    await asyncio.sleep(0.05)
    verifier.close()
    assert await ends(tasks) == [BusyError] * 3
    free.set()
    assert "0 accepted" in repr(verifier)


async def test_wrong_passwords_do_not_push_out_right_ones(verifier, compared, monkeypatch):
    """Right and wrong passwords are remembered in separate bounded caches."""
    monkeypatch.setattr(
        passwords.bcrypt, "checkpw", lambda p, _: compared.append(p) or p == b"alice"
    )
    assert await verifier.verify(HASHES, "alice", b"alice")
    for number in range(MAX_REMEMBERED + 10):
        await verifier.verify(HASHES, "alice", b"%d" % number)
    before = len(compared)
    assert await verifier.verify(HASHES, "alice", b"alice")
    assert len(compared) == before
    assert len(verifier._known[False]) == MAX_REMEMBERED


async def test_long_passwords(verifier):
    """Only the first 72 bytes count, as for every other reader of the format."""
    users = {"long": bcrypt.hashpw(b"a" * LONGEST, bcrypt.gensalt(4)).decode()}
    assert await verifier.verify(users, "long", b"a" * (LONGEST + 9))
    assert not await verifier.verify(users, "long", b"a" * (LONGEST - 1))


async def test_a_hash_that_only_looks_like_one(verifier):
    """An invalid hash admits no user."""
    assert not await verifier.verify({"a": "$2y$10$" + "." * 3}, "a", b"")


async def test_no_password_is_kept(verifier):
    """No cache and no repr holds a password."""
    secret = b"planted-secret-password"
    await verifier.verify(HASHES, "alice", secret)
    gc.collect()
    kept = repr(verifier.__dict__) + repr(verifier)
    assert "planted" not in kept
    assert "0 accepted, 1 refused" in repr(verifier)
