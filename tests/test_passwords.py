"""Passwords: who is let in, how often a hash is computed, and what is remembered."""

from __future__ import annotations

import asyncio
import gc
import threading

import bcrypt
import pytest

from kmproxy import passwords
from kmproxy.passwords import LONGEST, MAX_REMEMBERED, MAX_UNDER_WAY, BusyError, Passwords

from .tls import HASHES


@pytest.fixture
def compared(monkeypatch):
    """Every hash that is computed: what was compared with it."""
    seen = []
    check = bcrypt.checkpw

    def noted(password, hashed):
        seen.append((password, hashed, threading.current_thread() is threading.main_thread()))
        return check(password, hashed)

    monkeypatch.setattr(passwords.bcrypt, "checkpw", noted)
    return seen


@pytest.fixture
def verifier():
    """Passwords with a key of zeros."""
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
    """The user of that name with the password of that hash, the first time and every time."""
    for _ in range(3):
        assert await verifier.verify(HASHES, name, password) is right


async def test_nobody_is_let_in_by_the_hash_of_nobody(verifier, monkeypatch):
    """Even whoever knows what the hash is of."""
    monkeypatch.setattr(passwords, "_NOBODY", HASHES["alice"])
    assert not await verifier.verify({}, "mallory", b"alice")


async def test_nobody_takes_as_long(verifier, compared):
    """A name that is no user's is compared, too, with a hash of the usual cost."""
    assert not await verifier.verify(HASHES, "nobody", b"x")
    ((_, hashed, _),) = compared
    assert hashed.startswith(b"$2b$10$")


async def test_a_hash_is_computed_once(verifier, compared):
    """For each user and password, off the loop; the answer is remembered, yes or no."""
    for _ in range(3):
        await verifier.verify(HASHES, "alice", b"alice")
        await verifier.verify(HASHES, "alice", b"wrong")
    assert len(compared) == 2
    assert not any(on_the_loop for _, _, on_the_loop in compared)


async def test_one_comparison_under_way_for_each(verifier, compared):
    """However many ask at once."""
    answers = await asyncio.gather(*(verifier.verify(HASHES, "bob", b"bob") for _ in range(50)))
    assert answers == [True] * 50
    assert len(compared) == 1


async def test_who_leaves_does_not_end_it_for_others(verifier):
    """The first to ask is cancelled, the second has the answer."""
    first = asyncio.create_task(verifier.verify(HASHES, "bob", b"bob"))
    await asyncio.sleep(0)
    second = asyncio.create_task(verifier.verify(HASHES, "bob", b"bob"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second


async def test_a_changed_hash_is_another_answer(verifier):
    """What was right for the old hash is not for the new."""
    assert await verifier.verify(HASHES, "alice", b"alice")
    assert not await verifier.verify({"alice": HASHES["bob"]}, "alice", b"alice")
    assert not await verifier.verify({}, "alice", b"alice")


async def test_names_and_passwords_do_not_run_together(verifier):
    """`ab` with `c` is not `a` with `bc`."""
    hashed = bcrypt.hashpw(b"c", bcrypt.gensalt(4)).decode()
    assert await verifier.verify({"ab": hashed, "a": hashed}, "ab", b"c")
    assert not await verifier.verify({"ab": hashed, "a": hashed}, "a", b"bc")


async def test_a_flood_is_bounded(verifier):
    """More at once than may wait are turned away, and what is right is answered after them."""
    flood = [verifier.verify(HASHES, "alice", b"%d" % i) for i in range(MAX_UNDER_WAY + 5)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(answer, BusyError) for answer in answers) == 5
    assert await verifier.verify(HASHES, "alice", b"alice")


async def test_wrong_passwords_do_not_push_out_right_ones(verifier, compared, monkeypatch):
    """What is remembered is bounded, each kind by itself."""
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
    """Only 72 bytes are looked at, as every other reader of the format does."""
    users = {"long": bcrypt.hashpw(b"a" * LONGEST, bcrypt.gensalt(4)).decode()}
    assert await verifier.verify(users, "long", b"a" * (LONGEST + 9))
    assert not await verifier.verify(users, "long", b"a" * (LONGEST - 1))


async def test_a_hash_that_only_looks_like_one(verifier):
    """Lets nobody in."""
    assert not await verifier.verify({"a": "$2y$10$" + "." * 3}, "a", b"")


async def test_no_password_is_kept(verifier):
    """Neither in what is remembered nor in a repr."""
    secret = b"planted-secret-password"
    await verifier.verify(HASHES, "alice", secret)
    gc.collect()
    kept = repr(verifier.__dict__) + repr(verifier)
    assert "planted" not in kept
    assert "0 accepted, 1 refused" in repr(verifier)
