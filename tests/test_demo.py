"""`kmproxy demo`: its printed commands work when pasted, and its daemon stays small."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from kmproxy.simulator.cadvisor import NodeMetrics, simulate_node
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES
from tests.conftest import until
from tests.support.demo import demo
from tests.support.programs import free_port


async def shell(command):
    """The output of a command."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def printed(text, start):
    """The printed command with this beginning, with its continuation line."""
    return re.search(rf"^  ({re.escape(start)}.*(?:(?<=\\)\n.*)?)", text, re.MULTILINE)[1]


@pytest.mark.program("curl")
@pytest.mark.parametrize(
    "tool", ["curl -s -X PATCH", pytest.param("kubectl", marks=pytest.mark.program("kubectl"))]
)
async def test_a_namespace_moves(tool):
    """The metrics show the team, the printed command changes it, and the next look shows it."""
    async with demo() as (text, end):
        look = printed(text, "curl -s http")
        before = await shell(look)
        assert 'namespace="frontend-service2",team="frontend"' in before
        assert all('team="' in line for line in before.splitlines())
        await shell(printed(text, tool))

        async def moved():
            after = await shell(look)
            spaces = [line for line in after.splitlines() if "frontend-service2" in line]
            assert len(spaces) == before.count("frontend-service2")
            return all('team="backend"' in line for line in spaces)

        await until(moved)
        other = shlex.split(re.search(r"curl -s \S+/node-2/\S+", text)[0])[-1]
        assert 'team="payments"' in await shell(f"curl -sf {other}")
        assert "peak memory of the daemon" in await end()


@pytest.mark.program("curl")
async def test_memory_does_not_grow_with_the_payload(tmp_path):
    """The daemon's peak is equal for 12 and 120 MB, and under 52 MiB as in a pod."""
    node = simulate_node("node-1", DEFAULT_NAMESPACES, pods_per_namespace=3, started=0.0)
    text = NodeMetrics(node).text("/metrics/cadvisor", 1_795_000_000.0)
    peaks = []
    # Whoever measures coverage must not be measured as well.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    for megabytes in (12, 120):
        path = tmp_path / "payload"
        with path.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(text)):
                file.write(text)
        async with demo(f"--payload={path}", environment=environment) as (shown, end):
            url = shlex.split(printed(shown, "curl -s http").partition("|")[0])[-1]
            size = await shell(
                f"curl -sf -H 'X-Prometheus-Scrape-Timeout-Seconds: 60' {url} | wc -c"
            )
            assert int(size) > path.stat().st_size
            await shell(
                f"curl -sf --compressed -o {tmp_path / 'out'} -H 'X-Prometheus-Scrape-Timeout-Seconds: 60' {url}"
            )
            assert (tmp_path / "out").stat().st_size == int(size)
            peaks.append(
                float(re.search(r"peak memory of the daemon: ([0-9.]+) MiB", await end())[1])
            )
    assert max(peaks) - min(peaks) < 16
    assert max(peaks) < 52


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--nonsense=1"], 2, "unknown flag --nonsense"),
        (["--payload=/nowhere"], 2, "--payload /nowhere: No such file"),
        (["--api-port={port}"], 1, "cannot listen on 127.0.0.1:{port} (--api-port)"),
        (["--api-port={free}", "--listen=127.0.0.1:{port}"], 1, "the daemon ended early"),
        (["--api-port={free}", "--telemetry-listen=127.0.0.1:{port}"], 1, "ended early"),
    ],
)
async def test_what_goes_wrong(flags, status, says):
    """One line, and the exit status."""
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kmproxy",
            "demo",
            *(flag.format(port=port, free=free) for flag in flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        text = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert await process.wait() == status
    assert says.format(port=port) in text
    assert "Traceback" not in text
    assert "Ctrl-C ends it" not in text


def told(*arguments):
    """The command line of a demo."""
    return [sys.executable, "-m", "kmproxy", "demo", *arguments]


async def test_a_port_that_another_daemon_has():
    """Another daemon has the port: an error, and no message of success."""
    async with demo() as (text, _):
        metrics = re.search(r"curl -s http://localhost:(\d+)/metrics", text)[1]
        telemetry = re.search(r"own metrics are at http://localhost:(\d+)/", text)[1]
        process = await asyncio.create_subprocess_exec(
            *told(f"--api-port={free_port()}"),
            f"--listen=127.0.0.1:{metrics}",
            f"--telemetry-listen=127.0.0.1:{telemetry}",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert await process.wait() == 1
    assert "the address is in use" in said
    assert said.endswith("kmproxy: the daemon ended early, with status 1\n")
    assert "curl" not in said


def family(pid):
    """A process and its descendants, by id."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *(each for child in children for each in family(int(child)))]


def lives(pid):
    """Whether a process runs. A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
async def terminal(tmp_path):
    """A function that runs a demo in its own terminal, as the first process of the session.

    It returns the process, the terminal, and the output up to the demo's last line.
    """
    open_ = []

    async def start(*wrapper):
        ours, its = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            *told(f"--api-port={free_port()}"),
            *(f"--{name}=127.0.0.1:{free_port()}" for name in ("listen", "telemetry-listen")),
            stdin=its,
            stdout=its,
            stderr=its,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            preexec_fn=_in_front,
        )
        os.close(its)
        screen = os.fdopen(ours, "r+b", buffering=0)
        open_.append((process, screen))
        text = b""
        async with asyncio.timeout(60):
            while b"Ctrl-C ends it.\r\n\r\n" not in text:
                text += await asyncio.to_thread(screen.read, 4096)
        return process, screen, text

    yield start
    for process, screen in open_:
        screen.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _in_front():
    """Takes the terminal, and handles signals that are ignored under nohup."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def closed(process, screen):
    """The terminal's window is closed."""
    screen.close()


def killed(process, screen):
    """SIGKILL to the demo, which cannot react."""
    process.kill()


def killed_with_all_around(process, screen):
    """SIGKILL to the process group of the demo."""
    os.killpg(process.pid, signal.SIGKILL)


def interrupted(process, screen):
    """Ctrl-C, as the terminal sends it to the foreground processes, twice."""
    screen.write(b"\x03")
    screen.write(b"\x03")


def terminated(process, screen):
    """SIGTERM, as sent by `kill`."""
    process.terminate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize(
    "ends",
    [closed, killed, killed_with_all_around, interrupted, terminated],
    ids=lambda f: f.__name__,
)
async def test_nothing_stays_behind(ends, terminal, tmp_path):
    """However a demo ends, its daemon and its folder in /tmp are removed."""
    process, screen, _ = await terminal()
    started = family(process.pid)
    assert len(started) > 1
    assert list(tmp_path.glob("kmproxy-demo-*/token"))
    ends(process, screen)

    async def gone():
        return not any(map(lives, started)) and not list(tmp_path.iterdir())

    await until(gone)


async def test_a_supervisor_that_is_killed(terminal, tmp_path):
    """The demo ends with an error, and removes its daemon and its folder."""
    process, screen, _ = await terminal()
    _, supervisor, *others = family(process.pid)
    os.kill(supervisor, signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), 60) == 1
    assert not any(map(lives, others))
    assert not list(tmp_path.iterdir())
    screen.close()


async def test_a_demo_that_is_to_outlive_its_terminal(terminal, tmp_path):
    """With SIGHUP ignored, as under nohup, a closed terminal ends nothing."""
    process, screen, text = await terminal("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    screen.close()
    url = re.search(rb"curl -s (http\S+)/metrics/cadvisor", text)[1].decode()
    for _ in range(5):
        assert "team=" in await shell(f"curl -sSf {url}/metrics/cadvisor")
        await asyncio.sleep(0.1)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 60) == 0
