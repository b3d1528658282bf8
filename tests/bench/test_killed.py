"""What stays of `kmproxy bench --daemon` when it is killed: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmproxy.bench.guard import guard, guarded
from kmproxy.simulator.cadvisor import NodeMetrics, simulate_node

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")


NOBODY = 1 << 30
"""The id of no process: larger than any."""


def knowing(directory):
    """The ids of processes whose command lines name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(condition):
    """Wait until something is true."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_nothing_stays_of_a_killed_bench(tmp_path):
    """Neither the daemons nor their files, although nobody could stop them."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    payload = tmp_path / "payload.txt"
    node = simulate_node("node-1", ["one"], pods_per_namespace=1)
    payload.write_bytes(NodeMetrics(node).text("/metrics/cadvisor", 1_795_000_000.0))
    with (tmp_path / "said").open("wb") as said:
        bench = subprocess.Popen(
            [
                *(sys.executable, "-m", "kmproxy", "bench"),
                *("--daemon", "--seconds=5", f"--payload={payload}"),
            ],
            env=os.environ | {"TMPDIR": str(temporary)},
            stdout=said,
            stderr=said,
        )
        try:
            wait_until(
                lambda: (
                    any(b"serving" in log.read_bytes() for log in temporary.glob("*/kmproxy.log"))
                    or bench.poll() is not None
                )
            )
            assert bench.poll() is None
            assert len(knowing(temporary)) >= 3  # a daemon, and the guards of it and of the files
        finally:
            bench.kill()
            bench.wait()
    wait_until(lambda: not knowing(temporary) and not list(temporary.glob("kmproxy-*")))


def test_a_block_that_ends_leaves_the_rest_to_itself(tmp_path):
    """Its processes and its folder are not touched, here after an error."""
    other = subprocess.Popen(["sleep", "60"])

    def fail():
        with guarded(tmp_path) as note:
            note(other.pid)
            os.kill(NOBODY, 0)

    try:
        with pytest.raises(ProcessLookupError):
            fail()
        assert other.poll() is None
        assert tmp_path.is_dir()
        assert not knowing(tmp_path)
    finally:
        other.kill()
        other.wait()


def test_a_process_that_has_ended_by_itself(tmp_path):
    """It is no hindrance to the others and to the folder."""
    other = subprocess.Popen(["sleep", "60"])
    guard(tmp_path, [f"{NOBODY}\n", f"{other.pid}\n"])
    assert other.wait() == -9
    assert not tmp_path.exists()
