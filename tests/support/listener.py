"""Requests to the metrics port over plain HTTP or TLS, and the web config that sets its TLS."""

from __future__ import annotations

import asyncio

from tests.support.tls import write_config

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PAIR = {"cert_file": "tls.crt", "key_file": "tls.key"}


def config(directory, tls=PAIR, **sections):
    """Write the web config; returns the flag that names it."""
    path = write_config(directory / "web.yaml", {"tls_server_config": tls, **sections})
    return f"--web-config-file={path}"


async def ask(proxy, context=None, request=GET % b"/metrics/probes"):
    """The answer to a request on a connection of its own; b"" if there is none."""
    port = proxy.daemon.metrics_port
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        return b""
    try:
        writer.write(request)
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def served(proxy, context):
    """Whether a client is served samples with labels."""
    answer = await ask(proxy, context)
    return answer.startswith(b"HTTP/1.1 200 OK") and b'team="payments"' in answer
