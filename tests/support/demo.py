"""The demo as a process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

from tests.support.programs import free_port


@asynccontextmanager
async def demo_process(*flags, environment=None):
    """Runs a demo; yields its process and its text. The process is ended."""
    metrics, telemetry, api = (free_port() for _ in range(3))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kmproxy",
        "demo",
        f"--listen=127.0.0.1:{metrics}",
        f"--telemetry-listen=127.0.0.1:{telemetry}",
        f"--api-port={api}",
        *flags,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text = ""
    try:
        async with asyncio.timeout(60):
            while "Ctrl-C ends it" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
        yield process, text
    finally:
        if process.returncode is None:
            process.terminate()  # not killed: it ends its daemon
        await process.wait()


@asynccontextmanager
async def demo(*flags, environment=None):
    """Runs a demo; yields its text and a function that ends it and returns the rest."""
    async with demo_process(*flags, environment=environment) as (process, text):

        async def end():
            process.send_signal(signal.SIGINT)
            rest = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
            assert await process.wait() == 0
            return rest

        yield text, end
