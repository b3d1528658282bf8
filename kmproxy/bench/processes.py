"""Processes that are measured: started, waited for, stopped on any error; their time and memory.

Must not know what a process serves.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kmproxy.bench.guard import guarded
from kmproxy.errors import StartupError

HOST = "127.0.0.1"

READY_TIMEOUT = 30.0

STOP_TIMEOUT = 30.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process in seconds.

    It is exact to the nanosecond, or as exact as /proc.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so started processes are stopped.

    A closed terminal sends SIGHUP.
    """

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = {signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as by nohup
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals until the block has ended. A process started in it is known by then."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def running(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], port: int, log: Path
) -> Iterator[int]:
    """Run a process, which is ready when it answers on `port`. Yields its id.

    If this process is killed meanwhile, the other one is too, and the folder of `log` is removed.
    Raises StartupError.
    """
    with guarded(log.parent) as note:
        yield from _running(name, arguments, environment, port, log, note)


def _running(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    log: Path,
    note: Callable[[int], None],
) -> Iterator[int]:
    process = None
    try:
        try:
            with log.open("wb") as sink, undisturbed():
                process = subprocess.Popen(  # noqa: S603 - our own interpreter, or nginx by its path
                    arguments, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                    start_new_session=True,  # this process gets Ctrl-C, and stops the other
                )  # fmt: skip
                note(process.pid)
        except OSError as error:
            raise StartupError(f"{name} cannot be run: {error.strerror}") from error
        end = time.monotonic() + READY_TIMEOUT
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text("utf-8", "replace").strip().splitlines() or [
                    "the process printed nothing"
                ]
                raise StartupError(f"{name} did not start: {said[-1][:200]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    """Whether a server answers on the port with a status below 500."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            answer = connection.recv(64)
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 ") and not answer.startswith(b"HTTP/1.1 5")


def free_ports(count: int) -> list[int]:
    """Numbers of loopback ports that were free when this was called."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in taken]
