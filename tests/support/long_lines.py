"""Measures what lines of a megabyte cost an engine in memory, in a process of its own.

`python -m tests.support.long_lines ENGINE OPTION` prints JSON: for each line the peak in MiB, and
what an exposition of the compiled engine keeps of all of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection

SIZE = 1 << 20
EXPOSITIONS = 9


def filled(unit, head=b'm{namespace="a",', tail=b"} 1\n"):
    """A line of almost the largest length."""
    return head + unit * ((SIZE - len(head) - len(tail)) // len(unit)) + tail


LINES = {
    "empty values": filled(b'a="",'),
    "values": filled(b'a="b",'),
    "labels to be taken off": filled(b'le="",a="1",'),
    "labels to be added": filled(b'team="",'),
    "quoted names": filled(b'"a"="",'),
    "pods": filled(b'pod="p",'),
    "no sample": filled(b'a="",', tail=b"} x\n"),
}
OPTIONS = {
    "default": {},
    "all": {
        "pods": True,
        "info": True,
        "selection": Selection(
            drop_labels=frozenset({b"le"}),
            drop_metrics=(Globs(("none*",)),),
            exclude_namespaces=Globs(("none*",)),
            strip_timestamps=True,
        ),
    },
    "prefixes": {"namespace_labels": NamespaceLabels((b"namespace", b"source"), (b"n_", b"s_"))},
}
USUAL = b'm{namespace="a",team="x",pod="p"} 1\nm{namespace="a",le="1"} 1\n' * 20


def status(key):
    """MiB of this process, by the key of the kernel."""
    text = Path("/proc/self/status").read_text("ascii")
    return int(text.partition(key)[2].split()[0]) / 1024


def pipeline(engine, option):
    """A pipeline that has read usual lines."""
    made = Pipeline(
        lambda _: b',team="x"', Recipe(**OPTIONS[option]), pods=lambda *_: b',w="x"', engine=engine
    )
    made.feed(USUAL)
    return made


def measure(engine, option):
    """The peaks of lines, and what is kept."""
    running = [pipeline(engine, option) for _ in range(EXPOSITIONS if engine == "compiled" else 1)]
    peaks = {}
    for name, line in LINES.items():
        before = status("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")
        running[0].feed(line)
        peaks[name] = status("VmHWM:") - before
    before = status("VmRSS:")
    for each in running[1:]:
        for line in LINES.values():
            each.feed(line)
    return {"peaks": peaks, "kept": (status("VmRSS:") - before) / (EXPOSITIONS - 1)}


if __name__ == "__main__":
    json.dump(measure(*sys.argv[1:]), sys.stdout)
