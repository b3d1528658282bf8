"""Whether a connection ends with a reset."""

from __future__ import annotations

import asyncio


async def ends_in_a_reset(client):
    """Read all there is; tell whether it ends as something whole never does."""
    try:
        while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False
