"""The daemon as a process, in a simulated pod."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


def in_a_pod(cluster, directory):
    """The environment and flags of a daemon in front of node-a."""
    cluster.write_service_account(directory)
    api = urlsplit(cluster.api.url)
    kubelet = cluster.kubelets["node-a"]
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    flags = [
        f"--service-account-dir={directory}",
        f"--node-name-or-ip={kubelet.host}",
        f"--node-port={kubelet.port}",
        "--listen=127.0.0.1:0",
        "--telemetry-listen=127.0.0.1:0",
    ]
    return environment, flags


@asynccontextmanager
async def daemon(environment, flags):
    """Runs `kmproxy serve`; yields the process and its two ports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kmproxy", *flags, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            while b"serving metrics on port" not in (line := await process.stderr.readline()):
                assert line, "it has ended"
            words = line.decode().replace(",", " ").replace(";", " ").split()
            ports = [int(word) for word in words if word.isdecimal()]
            while b"namespaces loaded" not in line:
                line = await process.stderr.readline()
                assert line, "it has ended"
        yield process, ports
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # which reads what it has said: else its end is not seen


async def refused(port):
    """Whether a port refuses connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
