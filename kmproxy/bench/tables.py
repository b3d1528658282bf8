"""Formats the figures of `kmproxy bench` as tables.

Knows the document with the results of the measurements, and columns. Must not know how any figure
was measured. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000


def tables(document: dict[str, Any]) -> Iterator[str]:
    """The lines of text for a document, which is the document that `--output=json` prints."""
    yield (
        f"kmproxy {document['kmproxy']}, {document['python']}, {document['machine']}, "
        f"{document['cpus']} CPUs"
    )
    yield f"\nThe engine, in pieces of 64 KiB; CPU time, the fastest of {document['rounds']}"
    yield from _table(
        ("", "payload", "MB", "MB/s", "samples/s", "of memcpy", "x prometheus_client"),
        [
            (
                row["name"],
                Path(row["payload"]).name,
                f"{row['bytes'] / MEGABYTE:.1f}",
                f"{row['bytes_per_second'] / MEGABYTE:,.1f}",
                f"{row['samples_per_second']:,.0f}" if row["samples_per_second"] else "",
                f"{row['to_memcpy']:.1%}",
                f"{row['to_prometheus_client']:,.0f}",
            )
            for row in document["engine"]
        ],
    )
    if document["expfmt_skipped"]:
        yield f"\nGo's expfmt was not measured: {document['expfmt_skipped']}"
    yield from _discovery_text(document["discovery"])
    yield from _log_text(document["log_lines"])
    if "daemon" in document:
        yield from _daemon_text(document["daemon"])


def _discovery_text(document: dict[str, Any]) -> Iterator[str]:
    yield f"\nDiscovery, {document['pods']} pods that become {document['targets']} targets"
    yield from _table(
        ("", "MB", "ms"),
        [
            (
                name,
                f"{document[f'{size}_bytes'] / MEGABYTE:.1f}",
                f"{document[f'{part}_seconds'] * 1000:.1f}",
            )
            for name, size, part in (
                ("read the kubelet's list", "list", "read"),
                ("make an answer of it", "answer", "answer"),
            )
        ],
        left=1,
    )


def _log_text(document: dict[str, Any]) -> Iterator[str]:
    seconds = document["seconds"]
    size = document["bytes"] / document["lines"]
    yield f"\nLog lines, from the read to the push, {size:.0f} bytes each"
    yield from _table(
        ("", "lines/s", "MB/s", "gzip"),
        [
            (
                "one core",
                f"{document['lines'] / seconds:,.0f}",
                f"{document['bytes'] / seconds / MEGABYTE:.1f}",
                f"{document['pushed_bytes'] / document['bytes']:.0%}",
            )
        ],
        left=1,
    )


def _daemon_text(document: dict[str, Any]) -> Iterator[str]:
    yield "\nThe daemon, directly in front of a kubelet over TLS; the smallest of each figure"
    head = (
        "payload",
        "server",
        "kubelet",
        "client",
        "n",
        "CPU ms",
        "first ms",
        "last ms",
        "MB out",
        "peak MiB",
    )
    rows = []
    for row in document["scrapes"]:
        peak = row["peak_rss_bytes"]
        rows.append(
            (
                Path(row["payload"]).name,
                row["server"],
                row["from_kubelet"],
                row["to_client"],
                f"{row['scrapes']}",
                *(
                    f"{row[f'{key}_seconds'] * 1000:.1f}"
                    for key in ("cpu", "first_byte", "last_byte")
                ),
                f"{row['received_bytes'] / MEGABYTE:.1f}",
                "" if peak is None or row["server"] != "kmproxy" else f"{peak / (1 << 20):.1f}",
            )
        )
    yield from _table(head, rows, left=4)
    if document["nginx_skipped"]:
        yield f"\nnginx was not measured: {document['nginx_skipped']}"
        return
    yield "\nCPU time, kmproxy to nginx, by the codings from the kubelet and to the client"
    yield from _table(
        ("payload", "kmproxy", "nginx", "ratio"),
        [
            (
                Path(row["payload"]).name,
                row["of"].partition(", ")[2],
                row["to"].partition(", ")[2],
                f"{row['cpu']:.2f}",
            )
            for row in document["ratios"]
        ],
        left=3,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 2) -> Iterator[str]:
    """The lines of a table with aligned columns. The first `left` columns are aligned left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [
            f"{cell:<{width}}" if index < left else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
