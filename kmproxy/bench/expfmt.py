"""The way of kubelet-meta-proxy, measured: a Go program that parses and encodes with `expfmt`.

Knows the program and the form of its input and output. Must not know how figures are shown. The
program is `tests/cluster/expfmt`, which `make bench` builds where Go is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from kmproxy.bench.engine import Subject
from kmproxy.bench.payloads import Namespaces

PROGRAM = "expfmt"
NAME = "Go's expfmt, 1 label"


@contextmanager
def expfmt_subject(
    payload: str, text: bytes, spaces: Namespaces
) -> Iterator[tuple[list[Subject], str | None]]:
    """Starts the program for the block. Yields its subject, or none and the reason.

    The program has one thread, as the engine has. It ends with its standard input, so also if this
    process is killed.
    """
    if (program := shutil.which(PROGRAM)) is None:
        yield [], f"{PROGRAM}, which `make bench` builds with Go, is not on the PATH"
        return
    teams = {name: labels["team"] for name, labels in spaces.items()}
    with subprocess.Popen(  # noqa: S603 - the program by its path
        [program],
        env=os.environ | {"GOMAXPROCS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        given, answers, said = process.stdin, process.stdout, process.stderr
        assert given is not None and answers is not None and said is not None  # noqa: PT018, S101

        def run() -> int:
            given.write(b"\n")
            given.flush()
            return int(answers.readline().split()[0])

        try:
            given.write(json.dumps({"size": len(text), "teams": teams}).encode() + b"\n" + text)
            run()
        except (OSError, IndexError):  # it has ended: it does not take this text
            given.close()
            yield [], said.read().decode(errors="replace").strip() or f"{PROGRAM} has ended"
            return
        yield [Subject(NAME, payload, len(text), run)], None
        given.close()
