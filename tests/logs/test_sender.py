"""Pushes to an endpoint on a real socket, which misbehaves."""

import asyncio
import logging
import random

import pytest

from kmproxy.config.http_options import Access, Authorization, BasicAuth
from kmproxy.config.types import Secret
from kmproxy.logs.batches import BatchLimits
from kmproxy.logs.streams import StreamOptions
from tests.support.log_endpoint import container, line
from tests.support.loki import until


async def test_lines_are_taken(shipping):
    """One push of several streams, compressed; then every line is acknowledged and saved."""
    await shipping.start()
    blog = container(namespace="blog", uid="u2")
    shipping.add(line("one"), line("two", 1, stream="stderr"), line("three", 2, blog))
    await until(lambda: shipping.reader.left == 0)
    assert shipping.texts == {"one": 1, "two": 1, "three": 1}
    assert len(shipping.endpoint.store.streams) == 3
    (headers,) = shipping.endpoint.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["VL-Loki-Disable-Message-Parsing"] == "1"
    assert "X-Scope-OrgID" not in headers
    assert shipping.saved == 1
    assert shipping.value("lines_sent_total") == 3
    assert shipping.value("bytes_sent_total") == 11
    assert shipping.value("pushes_total", status="204") == 1
    assert shipping.value("push_seconds_count") == 1
    assert shipping.value("oldest_unsent_seconds") == 0
    assert shipping.value("buffer_bytes") == 0


async def test_tenants(shipping):
    """Each has pushes of its own, with its header."""
    await shipping.start(options=StreamOptions(tenant_label="team", tenants={"a": "one"}))
    shipping.add(line("x"), line("y", 0, container(namespace="blog")))
    await until(lambda: shipping.reader.left == 0)
    assert {tenant for tenant, _ in shipping.endpoint.store.streams} == {"one", "b"}


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (429, "429", "it takes no more"), (500, "500", "see its log"), (503, "503", "see its log"),
        (404, "404", "Usual paths: Loki: /loki/api/v1/push"), (401, "401", "not accepted"),
        (403, "403", "no right to push"), (302, "3xx", "a redirect is not followed"),
        (200, "2xx", "answered with 204"), (405, "4xx", "Usual paths"),
        ((400, "unsupported path requested"), "400", "Usual paths"),
        ("reset", "disconnected", "closed the connection"),
    ],
)  # fmt: skip
async def test_what_is_tried_again(shipping, caplog, answer, reason, words):
    """The whole push, with full jitter, until it is taken; the log says why, and no body."""
    shipping.endpoint.answers = [answer] * 3
    await shipping.start()
    shipping.add(*(line(f"{number}", number) for number in range(5)))
    await until(lambda: shipping.reader.left == 0)
    assert shipping.texts == {f"{number}": 1 for number in range(5)}
    assert [len(texts) for texts in shipping.endpoint.texts] == [5] * 4
    assert [low for low, _ in shipping.delays] == [0] * 3
    assert [high for _, high in shipping.delays] == [0.8, 1.6, 3.2]
    assert shipping.value("push_retries_total", reason=reason) == 3
    (said,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert words in said
    assert "planted" not in caplog.text
    assert shipping.sender.last_error is None


async def test_nobody_listens(shipping):
    """Connection errors are tried again for ever, and do not count as repeated."""
    await shipping.start(url="http://127.0.0.1:9/loki/api/v1/push")
    shipping.add(line("one"))
    await until(lambda: len(shipping.delays) >= 12)
    assert shipping.reader.left == 1
    assert max(high for _, high in shipping.delays) == 8.0
    assert shipping.value("lines_repeated_total") == 0
    assert "cannot be reached" in shipping.sender.last_error


async def test_an_endpoint_that_hangs(shipping):
    """A push has its time; then it is sent again, and its lines count as repeated."""
    shipping.endpoint.answers = ["hang"]
    await shipping.start(patience=0.2)
    shipping.add(line("one"))
    await until(lambda: shipping.reader.left == 0)
    shipping.endpoint.release.set()
    assert shipping.value("pushes_total", status="none") == 1
    assert shipping.value("push_retries_total", reason="timeout") == 1
    assert shipping.value("lines_repeated_total") == 1


async def test_an_answer_without_an_end(shipping):
    """Only its beginning is read. Equal lines that were stored are not stored again."""
    shipping.endpoint.answers = ["slow"]
    await shipping.start()
    shipping.add(line("one"), line("two", 1, stream="stderr"))
    await until(lambda: shipping.reader.left == 0)
    shipping.endpoint.release.set()
    assert shipping.texts == {"one": 1, "two": 1}


@pytest.mark.parametrize(
    ("asked", "least"), [("7", 7), ("100000", 60), ("soon", 0), ("-1", 0), ("1e9", 0)]
)
async def test_retry_after(shipping, asked, least):
    """What the endpoint asks for is waited at least, within a limit, with jitter on top."""
    shipping.endpoint.answers = [429]
    shipping.endpoint.extra = {"Retry-After": asked}
    await shipping.start()
    shipping.add(line("one"))
    await until(lambda: shipping.reader.left == 0)
    assert shipping.slept == [least + 0.4]


async def test_a_line_at_fault(shipping, caplog):
    """The push is halved until the line is alone. It is left out and counted; the others come."""
    shipping.endpoint.refuse = lambda texts: (
        (400, "entry for stream 'x' has timestamp too old: planted") if "bad" in texts else None
    )
    await shipping.start()
    shipping.add(*(line("bad" if number == 70 else f"{number}", number) for number in range(100)))
    await until(lambda: shipping.reader.left == 0)
    assert len(shipping.texts) == 99
    assert "bad" not in shipping.texts
    assert shipping.value("lines_lost_total", reason="too_old") == 1
    assert shipping.value("lines_sent_total") == 99
    assert len(shipping.endpoint.texts) < 16
    assert "(too_old)" in caplog.text
    assert "planted" not in caplog.text
    assert shipping.delays == []


async def test_a_push_that_is_too_large(shipping):
    """It is halved until it is taken; a line alone is left out."""
    shipping.endpoint.refuse = lambda texts: (413, "") if sum(map(len, texts)) > 500 else None
    await shipping.start()
    lines = [line("x" * 90 + f"{number:04}", number) for number in range(20)]
    shipping.add(*lines, line("y" * 600, 50))
    await until(lambda: shipping.reader.left == 0)
    assert sorted(shipping.texts) == sorted(each.text.decode() for each in lines)
    assert shipping.value("lines_lost_total", reason="too_long") == 1


async def test_a_wrong_url_that_answers_400(shipping, caplog):
    """No line is lost while the endpoint has taken none: it may be anything."""
    shipping.endpoint.refuse = lambda _: (400, "what is that?")
    await shipping.start()
    shipping.add(*(line(f"{number}", number) for number in range(30)))
    await until(lambda: len(shipping.delays) > 20)
    assert shipping.reader.left == 30
    assert "is --loki-url right?" in caplog.text
    shipping.endpoint.refuse = lambda _: None
    await until(lambda: shipping.reader.left == 0)
    assert len(shipping.texts) == 30
    assert shipping.value("lines_lost_total", reason="rejected") == 0


async def test_back_pressure(shipping):
    """While nothing is taken there is no room, and it comes back with the endpoint."""
    shipping.endpoint.answers = ["hang"]
    await shipping.start(limits=BatchLimits(wait=0.01, size=10_000, buffer=50_000))
    number = 0
    while shipping.batches.room:
        shipping.add(line("x" * 500, number))
        number += 1
    await until(lambda: shipping.endpoint.texts)
    waiting = asyncio.create_task(shipping.sender.room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    shipping.endpoint.release.set()
    assert await waiting > 0
    await until(lambda: shipping.reader.left == 0)
    assert shipping.batches.held == 0


async def test_one_push_of_a_tenant_at_a_time(shipping):
    """The next one begins after the positions are saved; another tenant does not wait."""
    gate = asyncio.Event()
    await shipping.start(options=StreamOptions(tenant_label="team"))

    async def save():
        await gate.wait()

    shipping.sender.saved = save
    shipping.add(line("one"))
    await until(lambda: shipping.reader.left == 0)
    shipping.add(line("two", 1), line("three", 2, container(namespace="blog")))
    await until(lambda: len(shipping.endpoint.texts) == 2)
    await asyncio.sleep(0.1)
    assert shipping.endpoint.texts == [["one"], ["three"]]
    gate.set()
    await until(lambda: shipping.reader.left == 0)
    assert shipping.endpoint.texts[2] == ["two"]


async def test_the_end(shipping):
    """What is read is sent within the grace period, without waiting for more."""
    await shipping.start(limits=BatchLimits(wait=600))
    shipping.add(line("one"))
    await shipping.sender.close(30)
    assert shipping.reader.left == 0
    assert shipping.texts == {"one": 1}


async def test_the_end_of_the_grace_period(shipping):
    """What was not taken by then stays unacknowledged, as do lines of unknown namespaces."""
    shipping.endpoint.answers = [503] * 1000
    await shipping.start()
    shipping.add(line("one"), line("two", 0, container(namespace="new")))
    await until(lambda: shipping.delays)
    await shipping.sender.close(0.1)
    await asyncio.wait_for(shipping._run, 30)
    assert shipping.reader.left == 2
    assert not shipping.texts


async def test_no_credential_after_a_redirect_or_over_http(shipping, caplog):
    """Neither is one shown in a log line."""
    shipping.endpoint.answers = [307, 401, 401]
    shipping.endpoint.extra = {"Location": "https://127.0.0.1:1/planted"}
    secret = Secret("planted-secret")
    await shipping.start(
        access=Access(Authorization(secret, "authorization"), headers=(("X-Key", secret),))
    )
    shipping.add(line("one"))
    await until(lambda: shipping.reader.left == 0)
    assert all(
        "Authorization" not in each and "X-Key" not in each for each in shipping.endpoint.headers
    )
    assert len(shipping.endpoint.headers) == 4
    assert "planted" not in caplog.text
    assert "planted" not in repr(shipping.sender)


async def test_a_credential_over_tls(stack, shipping, tmp_path):
    """It is sent, and after a 401 it is read again."""
    import ssl  # noqa: PLC0415 - this test alone needs it

    from aiohttp import web  # noqa: PLC0415 - as above

    from kmproxy.config.http_options import TlsOptions  # noqa: PLC0415 - as above
    from kmproxy.config.types import File  # noqa: PLC0415 - as above
    from tests.support.tls import Authority  # noqa: PLC0415 - as above

    authority = Authority()
    authority.write_pair(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "password").write_text("old")
    seen = []

    async def push(request):
        seen.append(request.headers.get("Authorization"))
        if len(seen) == 1:
            (tmp_path / "password").write_text("new")
            return web.Response(status=401)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/push", push)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    access = Access(
        BasicAuth(Secret("user"), File(str(tmp_path / "password"))),
        TlsOptions(ca=Secret(authority.pem.decode())),
    )
    await shipping.start(url=f"https://127.0.0.1:{site.port}/push", access=access)
    shipping.add(line("one"))
    await until(lambda: shipping.reader.left == 0)
    assert [len(each) for each in seen] == [len("Basic dXNlcjpvbGQ=")] * 2
    assert seen[0] != seen[1]


@pytest.mark.parametrize("seed", range(4))
async def test_any_misbehaviour(shipping, seed):
    """Each line is acknowledged once, in order: taken at least once, or counted as lost."""
    rng = random.Random(seed)
    kinds = [
        204,
        204,
        204,
        400,
        413,
        422,
        429,
        500,
        503,
        404,
        401,
        302,
        200,
        "reset",
        (400, "too old"),
    ]
    shipping.endpoint.answers = [rng.choice(kinds) for _ in range(150)]
    await shipping.start(
        limits=BatchLimits(wait=0.005, size=2000, buffer=60_000),
        options=StreamOptions(tenant_label="team"),
    )
    several = [container(namespace=rng.choice(["shop", "blog"]), uid=f"u{n}") for n in range(6)]
    for number in range(600):
        await shipping.sender.room()
        shipping.add(line(f"{number}", number, rng.choice(several)))
        assert shipping.batches.held < 60_000 + 1_000 * 4 + 6 * 2048
        if rng.random() < 0.05:
            await asyncio.sleep(0.002)
    await until(lambda: shipping.reader.left == 0)
    lost = sum(
        shipping.value("lines_lost_total", reason=reason)
        for reason in ("rejected", "too_long", "too_new", "too_old", "labels")
    )
    assert shipping.value("lines_sent_total") + lost == 600
    assert len(shipping.texts) >= 600 - lost
    assert shipping.batches.held == 0
