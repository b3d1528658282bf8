"""The waits of both daemons: for the first load of the namespaces, then for the end.

Must not know what a daemon does meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kmproxy.errors import StartupError
from kmproxy.labels.namespaces import NamespaceWatcher


async def until_loaded(
    stopped: asyncio.Task[Any],
    watcher: NamespaceWatcher,
    watching: asyncio.Task[None],
    limit: float,
) -> None:
    """Wait until the namespaces are loaded, or `stopped` has ended.

    `watching` is the task of the watcher. Raises its error, or StartupError if the namespaces are
    not loaded within `limit` seconds.
    """
    loaded = asyncio.create_task(watcher.wait_loaded())
    try:
        await asyncio.wait(
            {stopped, loaded, watching}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        loaded.cancel()
    if stopped.done():
        return
    if watching.done():
        await watching  # the watch ends only with an error, which this raises
    if not watcher.loaded:
        why = watcher.trouble or "the API server has not answered"
        raise StartupError(f"namespaces not loaded within {limit:g} s: {why}")


async def until_stopped(stopped: asyncio.Task[Any], *working: asyncio.Task[None]) -> None:
    """Wait until `stopped` has ended, or a task of `working`. Raises the error of that task."""
    await asyncio.wait({stopped, *working}, return_when=asyncio.FIRST_COMPLETED)
    for task in working:
        if task.done():
            await task
