"""Whether a connection ends with a reset."""

from __future__ import annotations

import asyncio


async def ends_in_a_reset(client):
    """Reads all bytes; tells whether the connection ends in a reset."""
    try:
        while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False
