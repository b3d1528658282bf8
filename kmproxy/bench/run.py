"""`kmproxy bench`: runs all measurements in order, and makes one document of their figures.

Knows which payloads are measured, given ones or made ones. Must not know processes or sockets, nor
how figures are shown. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kmproxy import __version__
from kmproxy.bench import discovery as benchdiscovery
from kmproxy.bench import log_lines
from kmproxy.bench.engine import all_subjects, measure_subjects, relate
from kmproxy.bench.expfmt import expfmt_subject
from kmproxy.bench.guard import guarded
from kmproxy.bench.payloads import Namespaces, beginning, cadvisor, namespaces_of
from kmproxy.bench.scrapes import Figures, measure
from kmproxy.bench.tables import MEGABYTE, tables
from kmproxy.bench.ways import COMPARED
from kmproxy.config.commands import BenchConfig
from kmproxy.errors import ConfigError


def bench(config: BenchConfig, say: Callable[[str], None]) -> str:
    """Measure, and return the text to print. `say` gets a line before each long step.

    Raises ConfigError for a payload that cannot be read, KmproxyError if the daemon fails.
    """
    given = _read(config.payload)
    say("bench: making payloads")
    spaces = namespaces_of(text for _, text in given)
    payloads = given or [("cAdvisor", cadvisor(spaces))]
    say(f"bench: the engine, about {config.seconds} s")
    name, text = payloads[0]
    one_node = text if given else cadvisor(spaces, nodes=1)  # expfmt refuses a family twice
    with expfmt_subject(name, one_node, spaces) as (others, expfmt_skipped):
        subjects = [*all_subjects(payloads, spaces), *others]
        rounds, rows = measure_subjects(subjects, config.seconds)
    relate(rows, [name for name, _ in payloads])
    document: dict[str, Any] = {
        "kmproxy": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "engine": rows,
        "expfmt_skipped": expfmt_skipped,
        "discovery": dataclasses.asdict(
            benchdiscovery.measure(namespaces_of([]), config.seconds / 20)
        ),
        "log_lines": dataclasses.asdict(log_lines.measure(config.seconds / 20)),
    }
    if config.daemon:
        figures, skipped = _measure_daemon(given, payloads[0][1], spaces, config.seconds, say)
        document["daemon"] = _daemon_document(figures, skipped)
    if config.output == "json":
        return json.dumps(document, indent=2) + "\n"
    return "\n".join(tables(document)) + "\n"


def _read(paths: Sequence[str]) -> list[tuple[str, bytes]]:
    """Read each file. Returns its path and text. Raises ConfigError with every problem."""
    payloads, problems = [], []
    for path in paths:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            problems.append(f"--payload {path}: {error.strerror}")
            continue
        if not text.endswith(b"\n"):
            problems.append(f"--payload {path}: the exposition must end with a newline")
        payloads.append((path, text))
    if problems:
        raise ConfigError(problems)
    return payloads


def _measure_daemon(
    given: Sequence[tuple[str, bytes]],
    text: bytes,
    spaces: Namespaces,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Figures], str | None]:
    """Measure the whole daemon, with payloads of 1, 12 and 120 MB or with the given payloads."""
    with (
        tempfile.TemporaryDirectory(prefix="kmproxy-bench-") as directory,
        guarded(Path(directory)),
    ):
        payloads = [(name, Path(name)) for name, _ in given]
        for megabytes in () if given else (1, 12, 120):
            path = Path(directory) / f"{megabytes}"
            size = megabytes * MEGABYTE
            with path.open("wb") as file:
                while file.tell() < size:
                    file.write(beginning(text, size - file.tell()))
            payloads.append((f"{megabytes} MB", path))
        return measure(payloads, spaces, seconds, say)


def _daemon_document(figures: Sequence[Figures], skipped: str | None) -> dict[str, Any]:
    cpu = {(row.payload, row.way): row.cpu for row in figures}
    return {
        "nginx_skipped": skipped,
        "scrapes": [
            {
                "payload": row.payload,
                "bytes": row.payload_bytes,
                "server": row.way.server,
                "from_kubelet": row.way.upstream,
                "to_client": row.way.client,
                "scrapes": row.scrapes,
                "cpu_seconds": row.cpu,
                "first_byte_seconds": row.first,
                "last_byte_seconds": row.last,
                "received_bytes": row.received,
                "peak_rss_bytes": row.peak_rss,
            }
            for row in figures
        ],
        "ratios": [
            {
                "payload": payload,
                "of": ours.name,
                "to": other.name,
                "cpu": cpu[payload, ours] / cpu[payload, other],
            }
            for payload in dict.fromkeys(row.payload for row in figures)
            for ours, other in COMPARED
            if (payload, other) in cpu
        ],
    }
