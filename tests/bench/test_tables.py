"""The form of figures: columns, units and omissions."""

from __future__ import annotations

from kmproxy.bench.tables import tables

DOCUMENT = {
    "kmproxy": "1.2.3",
    "python": "CPython 3.11.7",
    "machine": "Linux x86_64",
    "cpus": 2,
    "rounds": 7,
    "engine": [
        {
            "name": "engine, 1 label",
            "payload": "/somewhere/payload.txt",
            "bytes": 11_200_000,
            "bytes_per_second": 279_000_000.0,
            "samples_per_second": 885_000.0,
            "to_memcpy": 0.021,
            "to_prometheus_client": 44.1,
        },
        {
            "name": "memcpy",
            "payload": "cAdvisor",
            "bytes": 1_000_000,
            "bytes_per_second": 12_000_000_000.0,
            "samples_per_second": None,
            "to_memcpy": 1.0,
            "to_prometheus_client": 2000.0,
        },
    ],
    "expfmt_skipped": None,
    "discovery": {
        "pods": 500,
        "targets": 1500,
        "list_bytes": 2_500_000,
        "answer_bytes": 3_040_000,
        "read_seconds": 0.01234,
        "answer_seconds": 0.00056,
    },
    "log_lines": {
        "lines": 40_000,
        "bytes": 4_800_000,
        "pushed_bytes": 960_000,
        "pushes": 8,
        "seconds": 0.25,
    },
}


def test_tables():
    """Megabytes of 10^6, milliseconds, empty cells for unknown values; names instead of paths."""
    assert list(tables(DOCUMENT)) == [
        "kmproxy 1.2.3, CPython 3.11.7, Linux x86_64, 2 CPUs",
        "\nThe engine, in pieces of 64 KiB; CPU time, the fastest of 7",
        "                 payload        MB      MB/s  samples/s  of memcpy  x prometheus_client",
        "engine, 1 label  payload.txt  11.2     279.0    885,000       2.1%                   44",
        "memcpy           cAdvisor      1.0  12,000.0                100.0%                2,000",
        "\nDiscovery, 500 pods that become 1500 targets",
        "                          MB    ms",
        "read the kubelet's list  2.5  12.3",
        "make an answer of it     3.0   0.6",
        "\nLog lines, from the read to the push, 120 bytes each",
        "          lines/s  MB/s  gzip",
        "one core  160,000  19.2   20%",
    ]
