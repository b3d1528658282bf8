"""A push endpoint on a real socket that misbehaves as told, and keeps what Loki would keep."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections import defaultdict

from aiohttp import web

from kmproxy.logs.lines import Container, Line, Mark

SECOND = 10**9
START = 1_800_000_000 * SECOND


def container(name="app", namespace="shop", pod="web-1", uid="u1", node="n1"):
    """A container. Fields that are not given have any value."""
    return Container(uid, namespace, pod, name, node)


def line(text, number=0, of=None, *, stream="stdout", instance=0, time=None):
    """A line, one microsecond after the line of the number before."""
    data = text if isinstance(text, bytes) else text.encode()
    return Line(
        of or container(), instance, stream, START + 1000 * number if time is None else time, data
    )


class Reader:
    """Adds lines to batches, and checks that marks are acknowledged in their order."""

    def __init__(self, batches):
        self.batches = batches
        self.acknowledged = defaultdict(int)
        self.added = defaultdict(int)

    def add(self, added, **options):
        key = added.container
        self.added[key] += 1

        def acknowledge(mark):
            assert mark.number > self.acknowledged[key], "an older mark after a newer one"
            self.acknowledged[key] = mark.number

        self.batches.add(added, Mark(self.added[key]), acknowledge, **options)

    @property
    def left(self):
        """The number of lines that are not acknowledged."""
        return sum(self.added.values()) - sum(self.acknowledged.values())


class Store:
    """The lines that an endpoint keeps, as Loki does it: an equal line after itself once only."""

    def __init__(self):
        self.streams = defaultdict(list)
        self.pushes = []

    def keep(self, tenant, document):
        for each in document["streams"]:
            key = tenant, json.dumps(each["stream"], sort_keys=True)
            kept = self.streams[key]
            for time, text, *metadata in each["values"]:
                if not kept or kept[-1][:2] != (time, text):
                    kept.append((time, text, *metadata))

    @property
    def texts(self):
        """The texts of all lines, in no special order."""
        return [kept[1] for lines in self.streams.values() for kept in lines]


class LogEndpoint:
    """The endpoint. `answers` are for the next pushes, then each push is taken.

    An answer is a status, "hang", "reset", "slow", or a pair of a status and the bad text: a push
    with that text is refused and its other lines are kept, as Loki does it. `refuse` decides for
    each push with no answer left: it gets the texts and returns a status and a body, or None.
    """

    def __init__(self, answers=()):
        self.answers = list(answers)
        self.refuse = lambda _: None
        self.headers = []
        self.store = Store()
        self.texts = []
        self.release = asyncio.Event()
        self.url = ""
        self.extra = {}

    async def start(self, stack):
        """Listen until the stack ends."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._push)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}/loki/api/v1/push"
        return self

    async def _push(self, request):
        self.headers.append(request.headers.copy())
        data = await request.read()
        # aiohttp's server has decoded the gzip already where it knows the coding
        document = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        texts = [value[1] for each in document["streams"] for value in each["values"]]
        self.texts.append(texts)
        answer = self.answers.pop(0) if self.answers else 204
        if answer == "hang":
            await self.release.wait()
        if answer == "reset":
            with contextlib.suppress(Exception):
                request.transport.abort()
            return web.Response()
        if answer == "slow":
            self.store.keep(request.headers.get("X-Scope-OrgID"), document)
            response = web.StreamResponse(status=500)
            await response.prepare(request)
            while not self.release.is_set():
                await response.write(b"x" * 4096)
                await asyncio.sleep(0)
            return response
        if answer == 204 and (refused := self.refuse(texts)) is not None:
            answer = refused
        if isinstance(answer, tuple):
            status, body = answer
        else:
            status, body = answer, "planted-body"
        if status == 204:
            self.store.keep(request.headers.get("X-Scope-OrgID"), document)
            return web.Response(status=204)
        return web.Response(status=status, text=body, headers=self.extra)
