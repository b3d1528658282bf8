"""The daemon's files on disk: pins of kubelets' certificates, and the label snapshot.

Knows when each file is read, and which task writes it. Must not know the formats of the files.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kmproxy.client.pin_file import PinFile
from kmproxy.client.pinning import Pinning
from kmproxy.daemon.label_maps import LabelMaps
from kmproxy.daemon.runtime import Runtime
from kmproxy.kube.identity import Identity
from kmproxy.labels.snapshot import LabelSnapshot

LAST_WRITE = 2.0
"""Seconds that the last write of a file may take."""


async def keep_pins(runtime: Runtime, pinning: Pinning | None) -> None:
    """Read the pins of kubelets' certificates, and start the task that writes them to disk."""
    if pinning is None or pinning.path is None:
        return
    file = PinFile(pinning.path, pinning.book, runtime.metrics.pin_file)
    await file.load()
    _keep(runtime, file)


def keep_labels(runtime: Runtime, identity: Identity, labels: LabelMaps) -> None:
    """Start the task that restores the label snapshot and keeps it on disk, if it has a path."""
    config = runtime.config.apiserver
    if not config.label_snapshot:
        return
    snapshot = LabelSnapshot(
        path=Path(config.label_snapshot),
        identity=identity,
        labels=labels.samples,
        watcher=labels.watcher,
        metrics=runtime.metrics.snapshot,
        timeout=config.cache_sync_timeout,
        clock=runtime.clock,
        wall=runtime.wall,
    )
    _keep(runtime, snapshot)


def _keep(runtime: Runtime, keeper: PinFile | LabelSnapshot) -> None:
    """Run a keeper's task. At the end it writes its file a last time.

    The write may take `LAST_WRITE` seconds, as the disk may hang.
    """
    keeping = asyncio.create_task(keeper.run())

    async def stop() -> None:
        keeper.stop()
        await asyncio.wait({keeping}, timeout=LAST_WRITE)
        keeping.cancel()
        await asyncio.wait({keeping})  # waits for its cleanup, also after an error

    runtime.stack.push_async_callback(stop)
