"""`kmproxy demo --logs`: lines come with their team, and a printed command moves the next ones."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demo import demo_process
from tests.support.documents import block


async def shell(command):
    """Run a command that must succeed."""
    process = await asyncio.create_subprocess_shell(command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


async def line_of(process, pattern):
    """The next printed line with this pattern."""
    while True:
        line = (await process.stdout.readline()).decode()
        assert line, "the demo has ended"
        assert "Traceback" not in line
        if re.search(pattern, line):
            return line


async def team_of(process, namespace):
    """The team of the next printed line of a namespace."""
    return (await line_of(process, f" {namespace}/")).split()[0]


@pytest.mark.program("curl")
@pytest.mark.parametrize(
    "tool", ["curl -s -X PATCH", pytest.param("kubectl", marks=pytest.mark.program("kubectl"))]
)
async def test_a_namespace_moves(tool):
    """The lines before have the old team, those that come later the new one, and stay with it."""
    async with demo_process("--logs") as (process, text), asyncio.timeout(120):
        command = re.search(rf"^  ({tool}.*(?:(?<=\\)\n.*)?)", text, re.MULTILINE)[1]
        assert await team_of(process, "frontend-service2") == "team=frontend"
        await shell(command)
        while (team := await team_of(process, "frontend-service2")) == "team=frontend":
            pass
        assert team == "team=backend"
        assert await team_of(process, "frontend-service2") == "team=backend"
        assert await team_of(process, "frontend-service1") == "team=frontend"
        event = await line_of(process, r"/event .* name=\S+ kind=Pod .* type=Warning")
        assert event.split()[0] in {"team=frontend", "team=backend", "team=payments", "-"}
        process.send_signal(signal.SIGINT)
        rest = (await process.stdout.read()).decode()
        assert "peak memory of the daemon" in rest
        assert "Traceback" not in rest
        assert await process.wait() == 0


@pytest.mark.program("curl")
async def test_the_example_of_the_documents():
    """The README shows the beginning of the text, and lines of the printed form."""
    shown = block("kmproxy demo: the containers of node-1")
    async with demo_process("--logs") as (process, text), asyncio.timeout(120):
        api = re.search(r"--server=http://(localhost:\d+)", text)[1]
        beginning, _, lines = shown.replace("localhost:8001", api).partition("…\n")
        assert beginning in text
        for line in lines.splitlines():
            labels, place, _ = line.split(maxsplit=2)
            assert await team_of(process, place.partition("/")[0]) == labels


async def test_a_payload_beside_logs():
    """It would have no effect: one line, and exit 2."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kmproxy", "demo", "--logs", f"--payload={Path(__file__)}"),
        stderr=subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert said.decode() == "kmproxy: --payload has no effect with --logs\n"
    assert process.returncode == 2
