"""Servers of the tests' own, on real sockets: HTTPS sites, and forward proxies that CONNECT."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import NamedTuple

import trustme
from aiohttp import web


class Seen(NamedTuple):
    """A request: its method, path, headers and form, and whose certificate came with it."""

    method: str
    path: str
    headers: dict
    form: dict
    certificate: str | None


class Site:
    """An HTTP server with answers of the test. `seen` holds the requests, in order.

    `answer` takes a Seen and returns a web.Response. With a CA it speaks TLS, with a
    certificate for 127.0.0.1, localhost and `names`, and takes client certificates of it.
    """

    def __init__(self, answer, ca=None, *names):
        self.seen = []
        self._answer = answer
        self._context = None
        if ca is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.configure_trust(self._context)
            self._context.verify_mode = ssl.CERT_OPTIONAL
            self.show(ca.issue_cert("127.0.0.1", "localhost", *names))

    def show(self, leaf):
        """Use this certificate for new connections."""
        leaf.configure_cert(self._context)

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _handle(self, request):
        peer = request.transport.get_extra_info("peercert") or {}
        names = [v for part in peer.get("subject", ()) for k, v in part if k == "commonName"]
        form = dict(await request.post()) if request.method == "POST" else {}
        seen = Seen(
            request.method,
            request.raw_path,
            dict(request.headers),
            form,
            names[0] if names else None,
        )
        self.seen.append(seen)
        answer = self._answer(seen)
        return await answer if asyncio.iscoroutine(answer) else answer


def metrics(text='m{namespace="payments"} 1\n'):
    """An exposition as a kubelet answers it."""
    return web.Response(
        body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


def redirect(location, status=302):
    """A redirect to anywhere."""
    return web.Response(status=status, headers={"Location": location})


class ForwardProxy:
    """A proxy that CONNECTs and nothing else; `asked` holds each target with its headers.

    `known` leads targets by name to ports of 127.0.0.1; with `wants` a CONNECT without this
    Proxy-Authorization is answered 407. With a CA it is reached over TLS.
    """

    def __init__(self, *, known=None, wants=None, ca=None):
        self.asked = []
        self._known = known or {}
        self._wants = wants
        self._context = None
        if ca is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("127.0.0.1").configure_cert(self._context)
        self._tasks = set()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.append(writer)
        task.add_done_callback(self._tasks.discard)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = [tuple(line.split(": ", 1)) for line in head[1:] if line]
        self.asked.append((f"{method} {target}", headers))
        host, _, port = target.rpartition(":")
        if self._wants is not None and ("Proxy-Authorization", self._wants) not in headers:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(
                "127.0.0.1", self._known.get(host, int(port))
            )
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        self._writers.append(up_writer)
        writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))


async def _pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def pem_of(leaf):
    """The PEM of a certificate and of its key."""
    return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()


def new_ca():
    """A CA of its own."""
    return trustme.CA()
