"""Pushes to a real VictoriaLogs: each line is read back once, under the owner of the moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import aiohttp
import pytest

from kmproxy.client.factory import UpstreamFactory
from kmproxy.client.session import open_session
from kmproxy.config.http_options import Access
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.sender import NAME, Sender, SendMetrics
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.telemetry import CredentialErrors, open_registry
from tests.support.log_endpoint import Reader, container, line
from tests.support.loki import until
from tests.support.programs import VictoriaLogs, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("victoria-logs")]

ODD = [
    '{"level":"info","_msg":"other","team":"planted"}', 'tab\tand "quotes" and \\', "ünï\u2028cödé \U0001f600",
    "\x1b[31mred\x1b[0m\x00end", " blanks ", "x" * 100_000, "level=info msg=logfmt", "[1,2", "null",
]  # fmt: skip


class Shipped:
    """A VictoriaLogs and a sender in front of it."""

    def __init__(self, stack, server, options, labels):
        self.registry = open_registry()
        self.metrics = SendMetrics(self.registry)
        self.stack = stack
        self.server = server
        self.labels = labels
        clock = asyncio.get_running_loop().time
        self.batches = Batches(
            BatchLimits(wait=0.05, size=200_000, buffer=2_000_000),
            StreamLabels(options, labels.get),
            clock=clock,
            count=self.metrics.count,
        )
        self.reader = Reader(self.batches)

    async def start(self):
        """Run the sender until the stack ends."""
        clock = asyncio.get_running_loop().time
        session = await self.stack.enter_async_context(open_session())
        errors = CredentialErrors(self.registry)
        factory = UpstreamFactory(session, self.stack, {}, clock, errors, "loki")
        upstream = factory.exporter(NAME, self.server.push_url, Access(), session, {})

        async def saved():
            pass

        sender = Sender(
            upstream,
            self.server.push_url,
            self.batches,
            self.metrics,
            saved=saved,
            clock=clock,
            uniform=lambda _, high: min(high, 0.05),
        )
        run = asyncio.create_task(sender.run())

        async def end():
            await sender.close(0)
            await run

        self.stack.push_async_callback(end)
        return sender


@pytest.fixture
async def ship(tmp_path):
    """A function that starts both."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        server = VictoriaLogs.of(session, tmp_path)
        stack.push_async_callback(server.stop)
        await server.start()

        async def start(options=None, **labels):
            rendered = {name.encode(): value for name, value in labels.items()}
            shipped = Shipped(stack, server, options or StreamOptions(), rendered)
            return shipped, await shipped.start()

        yield start


async def read(server, count, **tenant):
    """The stored lines, once there are so many."""

    async def check():
        found = await server.lines(**tenant)
        assert len(found) >= count, len(found)
        return found

    return await eventually(check)


async def test_every_field_of_a_line(ship):
    """Text, nanosecond, stream labels and structured metadata are stored unchanged."""
    shipped, _ = await ship(shop=b',team="a"')
    for number, text in enumerate(ODD):
        shipped.reader.add(line(text, number, stream="stderr", instance=3))
    await until(lambda: shipped.reader.left == 0)
    found = await read(shipped.server, len(ODD))
    assert sorted(each["_msg"] for each in found) == sorted(ODD)
    for each in found:
        number = ODD.index(each["_msg"])
        assert (
            each["_time"] == f"2027-01-15T08:00:00.{number * 1000:09}".rstrip("0").rstrip(".") + "Z"
        )
        assert each["_stream"] == '{container="app",namespace="shop",stream="stderr",team="a"}'
        assert (each["pod"], each["node"], each["instance"]) == ("web-1", "n1", "3")
        assert each["team"] == "a"


async def test_a_move_to_another_team_over_a_restart(ship):
    """Each line once; those before the move with the one team, those after it with the other.

    The server is stopped in between. A push whose answer is lost may be stored twice: only the
    lines that are counted as repeated may be.
    """
    shipped, sender = await ship(shop=b',team="a"', blog=b',team="b"')
    several = [
        container(namespace=name, uid=f"{name}{n}", pod=f"p{n}")
        for name in ("shop", "blog")
        for n in range(3)
    ]

    async def write(first, last):
        for number in range(first, last):
            await sender.room()
            shipped.reader.add(line(f"line {number}", number, several[number % 6]))
            if not number % 200:
                await asyncio.sleep(0.002)

    await write(0, 5000)
    writing = asyncio.create_task(write(5000, 10_000))
    await shipped.server.stop()
    await asyncio.sleep(0.5)
    await shipped.server.start()
    await writing
    await until(lambda: shipped.reader.left == 0)
    shipped.labels[b"shop"] = b',team="c"'
    await write(10_000, 15_000)
    await until(lambda: shipped.reader.left == 0)
    found = await read(shipped.server, 15_000)
    times = Counter(each["_msg"] for each in found)
    assert len(times) == 15_000
    repeated = shipped.registry.get_sample_value("kmproxy_log_lines_repeated_total")
    assert len(found) - 15_000 <= repeated
    for each in found:
        number = int(each["_msg"].split()[1])
        expected = "b" if number % 6 > 2 else "a" if number < 10_000 else "c"
        assert each["team"] == expected, each
    assert shipped.registry.get_sample_value("kmproxy_log_lines_sent_total") == 15_000


async def test_equal_lines(ship):
    """Lines of one nanosecond and one text are all stored."""
    shipped, _ = await ship(shop=b"")
    for _ in range(50):
        shipped.reader.add(line("same"))
    await until(lambda: shipped.reader.left == 0)
    found = await read(shipped.server, 50)
    assert len({each["_time"] for each in found}) == len(found) == 50


async def test_tenants(ship):
    """Each tenant's lines are its own; a value that VictoriaLogs cannot take goes to the default."""
    options = StreamOptions(
        tenant_label="team", tenants={"a": "7:3"}, default_tenant="9", accounts=True
    )
    shipped, _ = await ship(options, shop=b',team="a"', blog=b',team="words"', news=b',team="8"')
    for name in ("shop", "blog", "news"):
        shipped.reader.add(line(name, 0, container(namespace=name)))
    await until(lambda: shipped.reader.left == 0)
    for name, tenant in (("shop", (7, 3)), ("blog", (9, 0)), ("news", (8, 0))):
        found = await read(shipped.server, 1, account=tenant[0], project=tenant[1])
        assert [each["_msg"] for each in found] == [name]


@pytest.mark.parametrize(
    "path", ["/", "/loki/api/v1/push", "/insert/jsonline", "/insert/elasticsearch/_bulk"]
)
async def test_another_path_of_the_server(ship, path, caplog):
    """No line is lost: VictoriaLogs answers 400 or 200 there, and the log names the usual path."""
    shipped, sender = await ship(shop=b"")
    sender.url = f"{shipped.server.url}{path}"
    for number in range(20):
        shipped.reader.add(line(f"{number}", number))
    await until(lambda: sender.last_error)
    assert "/insert/loki/api/v1/push" in sender.last_error
    assert shipped.reader.left == 20
    sender.url = shipped.server.push_url
    await until(lambda: shipped.reader.left == 0)
    found = await read(shipped.server, 20)
    # /insert/jsonline stores a push as one line of its own, without a text
    assert sorted(int(each["_msg"]) for each in found if each["_msg"].isdigit()) == [*range(20)]
