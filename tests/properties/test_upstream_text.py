"""Text from an upstream's head: control characters never pass, and no line can be forged."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest

from kmproxy.cli.log import JsonFormatter, TextFormatter
from kmproxy.errors import AccessError, ApiError, UpstreamError, one_line
from kmproxy.web.responses import plain

BODY = b'm{namespace="payments"} 1\n'


@asynccontextmanager
async def kubelet(head):
    """A server that answers every request with these head bytes and one sample."""

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(BODY), BODY))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


PLAIN = b"200 OK\r\nContent-Type: text/plain"


@pytest.mark.parametrize("byte", [0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F, 0x80, 0x85, 0xFF])
@pytest.mark.parametrize(
    "head",
    [
        PLAIN + b"; version=0.0.4%b",
        b"200 OK\r\nContent-Type: text/%bplain",
        PLAIN + b"\r\nContent-Encoding: gz%bip",
        PLAIN + b"\r\nTransfer-Encoding: x%b",
        b"200 O%bK\r\nContent-Type: text/html",
        b"500 x%bforged",
        b"302 Found\r\nLocation: https://a%bb/",
        b"200 OK\r\nContent-Type: text/plain%b\r\nContent-Type: text/plain",
    ],
)
async def test_a_control_character_in_a_head(front, head, byte, caplog):
    """The scrape gets 502 with one line. It is no internal error, and nothing passes."""
    async with kubelet(head.replace(b"%b", bytes([byte]))) as port:
        proxy = await front("--kubelet-scheme=http", f"--node-port={port}")
        answer, _ = await proxy.raw(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 502 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body.count(b"\n") == 1
    assert one_line(body.decode().rstrip("\n")) == body.decode().rstrip("\n")
    assert not any(record.exc_info for record in caplog.records)
    assert all(one_line(record.getMessage()) == record.getMessage() for record in caplog.records)


async def test_a_tab_is_text(front):
    """A header value with a tab is passed on unchanged."""
    async with kubelet(PLAIN + b';\tversion=0.0.4; x="a b"') as port:
        proxy = await front("--kubelet-scheme=http", f"--node-port={port}")
        answer, _ = await proxy.raw(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'Content-Type: text/plain;\tversion=0.0.4; x="a b"\r\n' in answer


FORGED = "x\n2026-01-01T00:00:00.000Z INFO all is well\r\x1b[2J\u2028\u202e\x85\ud800\x7f"
SPELLED = r"x\n2026-01-01T00:00:00.000Z INFO all is well\r\x1b[2J\u2028\u202e\x85\ud800\x7f"


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("tls", FORGED),
        ApiError(200, "garbage", FORGED),
        AccessError(500, "failed", FORGED),
    ],
)
def test_an_error_is_one_line(error):
    """An error is one line for any text in a host name, a certificate or a peer's answer."""
    assert str(error) == SPELLED


def test_a_body_is_one_line():
    """A text of two lines becomes one line in the body."""
    assert plain(502, "a\nb\r\x1b").text == "a b\\r\\x1b\n"


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_a_record_is_one_line(formatter):
    """A log record is one line, whatever its values contain."""
    record = logging.LogRecord("k", logging.WARNING, "", 0, "%s: %s", ("kubelet", FORGED), None)
    line = formatter().format(record)
    assert "\n" not in line
    if formatter is JsonFormatter:
        assert json.loads(line)["message"] == f"kubelet: {FORGED}"
    else:
        assert one_line(line) == line
        assert line.endswith(f"WARNING kubelet: {SPELLED}")


@pytest.mark.parametrize("text", ["", "plain \u00fcn\u00efc\u00f6de \U0001f680", "a\\nb", "\u00a0"])
def test_what_is_text_stays(text):
    """Letters of any script, blanks and backslashes are kept."""
    assert one_line(text) == text
