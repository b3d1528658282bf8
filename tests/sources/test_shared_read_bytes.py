"""The bytes that a shared read holds: as many as are counted, whatever its readers have taken."""

from __future__ import annotations

import asyncio
import random
import tracemalloc

import pytest

from kmproxy.sources.shared_read import COST, PIECE, Head, Room, SharedRead

HELD = 4 << 20
SMALL = 256 << 10


@pytest.mark.parametrize("size", [1000, PIECE, 3 * PIECE // 2])
async def test_a_read_never_takes_more_than_is_counted(size):
    """Also when no more readers are admitted, and the first bytes go while more arrive."""
    room = Room(1 << 30)
    read, most = SharedRead(0.0, room), 0
    reader, data = read.join(), b"x" * size
    read.begin(Head("text/plain", "identity"))
    tracemalloc.start()
    try:
        while read.held < HELD:
            read.append(data)
        read.close()
        pieces = read.pieces(reader)
        tracemalloc.reset_peak()
        taken = 0
        while taken < HELD:
            piece = await anext(pieces)
            taken += len(piece)
            for _ in range(0, len(piece), size):
                read.append(data)
                most = max(most, room.held)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most > HELD
    assert peak < most + SMALL
    await pieces.aclose()
    read.leave(reader)
    assert room.held == 0


@pytest.mark.parametrize("seed", range(20))
async def test_every_reader_gets_every_byte(seed):
    """In whatever pieces the bytes arrive, and wherever the readers are when they go."""
    chance = random.Random(seed)
    room = Room(chance.choice([1, 1 << 30]))
    read, sent = SharedRead(0.0, room), bytearray()
    readers = [read.join() for _ in range(3)]

    async def take(reader):
        got = bytearray()
        async for piece in read.pieces(reader):
            assert 0 < len(piece) <= PIECE
            got += piece
            for _ in range(chance.choice([0, 1, 5])):
                await asyncio.sleep(0)
        read.leave(reader)
        return bytes(got)

    tasks = [asyncio.create_task(take(reader)) for reader in readers]
    closed_at = chance.randrange(40)
    for step in range(40):
        if step == closed_at:
            read.close()
        data = chance.randbytes(chance.choice([1, 100, PIECE - 1, PIECE, PIECE + 1, 200_000]))
        read.append(data)
        sent += data
        if step >= closed_at:
            await read.drained()
        await asyncio.sleep(0)
    read.end()
    assert await asyncio.gather(*tasks) == [bytes(sent)] * 3
    assert room.held == 0


async def test_bytes_that_were_taken_go():
    """What a closed read holds is at most one piece more than its reader has still to take."""
    room = Room(1 << 30)
    read = SharedRead(0.0, room)
    reader = read.join()
    read.append(bytes(10 * PIECE + 5))
    read.close()
    pieces = read.pieces(reader)
    for left in range(9, -1, -1):
        await anext(pieces)
        assert room.held <= (left + 2) * PIECE + COST
    await pieces.aclose()
