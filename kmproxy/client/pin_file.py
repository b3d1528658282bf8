"""The pins of kubelets' certificates on disk, beside the label snapshot.

Knows when the file is read and written. Must not know the use of a pin.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from kmproxy.client.pins import HEAD, MAX_BYTES, PinBook, decode
from kmproxy.errors import OwnFileError, PinError
from kmproxy.own_file import aside, read_own, replace_own

SUFFIX = ".kubelet-pins"
"""The suffix that makes the file's name from the name of the label snapshot."""

PATIENCE = 5.0
"""Seconds that reading the file may take at the start."""

RETRY = 10.0
"""Seconds between a failed write and the next attempt."""

_log = logging.getLogger(__package__)


class PinFileMetrics:
    """Counts failures of the file of pins."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.errors = Counter(
            "kmproxy_kubelet_pin_errors",
            "Failures to read or write the file of kubelets' pins.",
            ["operation"],
            registry=registry,
        )


class PinFile:
    """Keeps the pins of a PinBook in a file. It writes each change at once.

    A file that cannot be trusted or written causes a log line and a metric, never
    an exit. The pins in memory stay valid. If the disk hangs, one thread waits for
    it. Requests do not wait.
    """

    def __init__(self, path: str, book: PinBook, metrics: PinFileMetrics) -> None:
        self._path = Path(path)
        self._book = book
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failing = False

    def __repr__(self) -> str:
        return f"<PinFile {self._path}>"

    async def load(self) -> None:
        """Load the pins of the file. It loads none if the file is absent or cannot be trusted."""
        limit = len(HEAD) + MAX_BYTES
        try:
            async with asyncio.timeout(PATIENCE):
                data = await aside(lambda: read_own(self._path, limit), "kubelet-pins")
            self._book.restore(decode(data))
        except FileNotFoundError:
            return
        except (OSError, OwnFileError, PinError) as error:
            self._tell("is not used, so kmproxy pins each kubelet's next certificate", error)
            self._metrics.errors.labels("read").inc()

    async def run(self) -> None:
        """Write the pins whenever they change, until `stop`."""
        self._book.changed = self._changed.set
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while not stopped.done():
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._changed.is_set() and not await self._save():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), RETRY)
        finally:
            stopped.cancel()

    def stop(self) -> None:
        """Tell `run` to write the unsaved changes and end."""
        self._stopping.set()

    async def _save(self) -> bool:
        self._changed.clear()
        data = self._book.encode()
        try:
            await aside(lambda: replace_own(self._path, [data]), "kubelet-pins")
        except OSError as error:
            self._changed.set()
            self._metrics.errors.labels("write").inc()
            if not self._failing:
                self._tell("cannot be written", error)
            self._failing = True
            return False
        self._failing = False
        return True

    def _tell(self, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or "the disk does not answer"
        _log.warning("--kubelet-tls-pin: %s %s: %s", self._path, what, reason)
