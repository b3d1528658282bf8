"""Calls that tasks share: their errors, cancelled tasks, closing."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.shared import SharedCall, SharedCalls
from tests.support.sharing import Source


async def waiting(call, count):
    """Let the loop run until as many tasks wait for the call."""
    while call.waiting < count:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def cancelled(*tasks):
    """Cancel these tasks and see them end."""
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError)
        for each in await asyncio.gather(*tasks, return_exceptions=True)
    )


async def asking(call, count):
    """As many tasks that wait for a call."""
    tasks = [asyncio.create_task(call.result()) for _ in range(count)]
    await waiting(call, count)
    return tasks


async def test_one_call_at_a_time():
    """All tasks that ask while it runs get its result; the next one begins another."""
    source = Source("first", "second")
    source.gate.clear()
    call = SharedCall(source)
    tasks = await asking(call, 20)
    assert (call.running, repr(call)) == (True, "<SharedCall 20 waiting>")
    source.gate.set()
    assert set(await asyncio.gather(*tasks)) == {"first"}
    assert (call.running, call.waiting, repr(call)) == (False, 0, "<SharedCall idle>")
    assert await call.result() == "second"
    assert source.asked == 2


async def test_a_call_goes_on_without_those_that_were_cancelled():
    """One of two tasks is cancelled, then both: the call serves the next task that asks."""
    source = Source("value")
    source.gate.clear()
    call = SharedCall(source)
    first, second = await asking(call, 2)
    await cancelled(first)
    assert (call.running, call.waiting) == (True, 1)
    await cancelled(second)
    assert (call.running, call.waiting) == (True, 0)
    (third,) = await asking(call, 1)
    source.gate.set()
    assert await third == "value"
    assert source.asked == 1


async def test_a_call_that_ends_without_tasks():
    """Without `keep` it is cancelled with its last task, which waits for its end."""
    ends, source, again = [], Source("value"), Source("again")
    source.gate.clear()

    async def slow():
        try:
            return await source()
        finally:
            await asyncio.sleep(0.01)
            ends.append(source)

    calls = SharedCalls(keep=False)
    first, second = (asyncio.create_task(calls.result("key", slow)) for _ in range(2))
    await source.begun.wait()
    await cancelled(first)
    assert (calls.waiting("key"), ends) == (1, [])
    second.cancel()
    await asyncio.sleep(0)
    assert await calls.result("key", again) == "again"
    assert ends == []
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (ends, len(calls), len(asyncio.all_tasks())) == ([source], 0, 1)
    other = Source("kept")
    assert await calls.result("key", other) == "kept"


async def test_every_task_gets_the_error():
    """It is not remembered: the next task begins a new call."""
    source = Source(ValueError("broken"), "value")
    source.gate.clear()
    call = SharedCall(source)
    tasks = await asking(call, 3)
    source.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["broken"] * 3
    assert await call.result() == "value"


async def test_an_error_after_all_tasks_were_cancelled(caplog):
    """Asyncio does not log it as an error that was never retrieved."""
    source = Source(ValueError("broken"))
    source.gate.clear()
    call = SharedCall(source)
    await cancelled(*await asking(call, 2))
    source.gate.set()
    while call.running:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    del call
    assert caplog.text == ""


async def test_a_call_that_begins_before_anybody_waits():
    """A task that asks later joins the running call."""
    source = Source("value")
    source.gate.clear()
    call = SharedCall(source)
    call.begin()
    await source.begun.wait()
    (task,) = await asking(call, 1)
    source.gate.set()
    assert await task == "value"
    assert source.asked == 1


async def test_close_cancels_the_call():
    """Waiting tasks are cancelled, and later ones too. No call begins after `close`."""
    source = Source("value")
    source.gate.clear()
    call = SharedCall(source)
    tasks = await asking(call, 2)
    await source.begun.wait()
    await call.close()
    assert not call.running
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(asyncio.CancelledError):
        await call.result()
    await call.close()
    assert (source.asked, len(asyncio.all_tasks())) == (1, 1)


async def test_close_before_any_call():
    """There is nothing to cancel."""
    call, calls = SharedCall(Source()), SharedCalls()
    await call.close()
    await calls.close()
    with pytest.raises(asyncio.CancelledError):
        await calls.result("key", Source())


async def test_a_call_for_each_key():
    """Tasks share a call only with tasks of the same key, and nothing is held after its end."""
    one, two, unused = Source(1), Source(2), Source()
    one.gate.clear()
    two.gate.clear()
    calls = SharedCalls()
    first = asyncio.create_task(calls.result("one", one))
    second = asyncio.create_task(calls.result("two", two))
    await asyncio.gather(one.begun.wait(), two.begun.wait())
    third = asyncio.create_task(calls.result("one", unused))
    await asyncio.sleep(0)
    assert (calls.waiting("one"), calls.waiting("two"), calls.waiting("three")) == (2, 1, 0)
    assert repr(calls) == "<SharedCalls 2 running>"
    one.gate.set()
    two.gate.set()
    assert await asyncio.gather(first, second, third) == [1, 2, 1]
    await asyncio.sleep(0)
    assert (len(calls), unused.asked) == (0, 0)


async def test_a_key_is_asked_for_again_at_the_moment_of_its_end():
    """Before the end is noticed, a new call begins: it is held, and the next task joins it."""
    calls, begun, later, gate = SharedCalls(), [], [], asyncio.Event()

    async def call():
        begun.append(None)
        if len(begun) == 1:
            later.append(asyncio.create_task(ask()))  # runs before this task's callbacks
        else:
            await gate.wait()

    async def ask():
        await calls.result("key", call)

    await calls.result("key", call)
    while len(begun) < 2:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    later.append(asyncio.create_task(ask()))
    await asyncio.sleep(0)
    assert (len(calls), calls.waiting("key")) == (1, 2)
    gate.set()
    await asyncio.gather(*later)
    await asyncio.sleep(0)
    assert (len(begun), len(calls)) == (2, 0)


async def test_a_call_that_refuses_at_once():
    """Nothing is held for it."""

    def call():
        raise ValueError("too many")

    calls, source = SharedCalls(), Source("value")
    with pytest.raises(ValueError, match="too many"):
        await calls.result("key", call)
    assert len(calls) == 0
    assert await calls.result("key", source) == "value"


async def test_the_call_of_one_key_is_cancelled():
    """The tasks that wait for it are, and the next one begins a new call at once."""
    source, other, again = Source("value"), Source("other"), Source("again")
    source.gate.clear()
    other.gate.clear()
    calls = SharedCalls()
    first = asyncio.create_task(calls.result("key", source))
    second = asyncio.create_task(calls.result("other", other))
    await asyncio.gather(source.begun.wait(), other.begun.wait())
    calls.cancel("key")
    calls.cancel("unknown")
    assert await calls.result("key", again) == "again"
    with pytest.raises(asyncio.CancelledError):
        await first
    other.gate.set()
    assert await second == "other"


async def test_close_cancels_the_calls_of_all_keys():
    """Waiting tasks are cancelled, and no call is left running."""
    sources = [Source(number) for number in range(3)]
    calls = SharedCalls()
    for source in sources:
        source.gate.clear()
    tasks = [asyncio.create_task(calls.result(source, source)) for source in sources]
    await asyncio.gather(*(source.begun.wait() for source in sources))
    await calls.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError] * 3
    assert (len(calls), len(asyncio.all_tasks())) == (0, 1)
    with pytest.raises(asyncio.CancelledError):
        await calls.result(None, sources[0])
