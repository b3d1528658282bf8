"""`kmproxy bench`: its rows and relations, with short measurements. No figure is judged."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kmproxy.bench import engine, expfmt, payloads, processes, scrapes, ways
from kmproxy.cli.main import main
from kmproxy.config.commands import BenchConfig
from kmproxy.errors import KmproxyError
from kmproxy.exposition.engine import available
from kmproxy.exposition.enricher import Enricher
from kmproxy.simulator.cadvisor import NodeMetrics, simulate_node

OF_AN_ENGINE = [
    "1 label",
    "3 labels",
    "1 label, overwrite",
    "1 label, 10,000 namespaces",
    "1 label, 10,000 pods",
    "1 label, 10,000 pods, first scrape",
    "1 label, metrics and namespaces",
    "1 label, no timestamps",
    "1 label, --drop-label",
    "1 label, every option",
    "1 label, all conflict",
    "1 label, all conflict, overwrite",
]
ALWAYS = [
    ("1 label", "kube-state-metrics"),
    ("1 label, a list of names", "kube-state-metrics"),
    ("1 label, two prefixes", "service mesh"),
    ("1 label", "kubelet"),
]
OTHERS = ["memcpy", "prometheus_client, 1 label", "isal gzip level 1"]
EXPFMT = [expfmt.NAME] if shutil.which(expfmt.PROGRAM) else []


def subjects(payload):
    """The names and payloads of all rows, in order."""
    rows = []
    for name in available():
        each = [*((row, payload) for row in OF_AN_ENGINE), *ALWAYS]
        rows += [(f"{name} engine, {row}", of) for row, of in each]
    return rows + [(row, payload) for row in [*OTHERS, *EXPFMT]]


def start(*flags, warnings=("error",), **environment):
    """Starts the command."""
    filters = [f"-W{each}" for each in warnings]
    return subprocess.Popen(
        [sys.executable, *filters, "-m", "kmproxy", "bench", *flags],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeding,  # noqa: PLW1509
    )


def _heeding():
    """Handles signals that are ignored in the background or under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def run(*flags, **environment):
    """Runs the command, which has to succeed; returns standard output and standard error."""
    process = start(*flags, **environment)
    output, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert all(line.startswith("kmproxy: bench: ") for line in said.splitlines())
    return output, said


def left_behind(directory):
    """The command lines of processes that name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in command:
            found.append(command)
    return found


@pytest.fixture
def payload(tmp_path):
    """A small exposition in a file."""
    path = tmp_path / "payload.txt"
    node = simulate_node("node-1", ["one", "two"], pods_per_namespace=1)
    path.write_bytes(NodeMetrics(node).text("/metrics/cadvisor", 1_795_000_000.0))
    return path


def test_the_engine():
    """A line about the machine, and a row for every stage, on generated payloads."""
    output, said = run("--seconds=1")
    head, _, *table = output.splitlines()
    assert "Python" in head
    assert head.endswith(f"{os.cpu_count()} CPUs")
    assert table[0].startswith("The engine, in pieces of 64 KiB; the fastest of ")
    names = subjects("cAdvisor")
    end = table.index("")
    assert end == 2 + len(names)
    if not EXPFMT:
        skipped = table.pop(end + 1)
        assert skipped.startswith("Go's expfmt was not measured: expfmt, which `make bench` builds")
        assert table.pop(end + 1) == ""
    assert table[end + 1].startswith("Discovery, 500 pods that become ")
    discovery, logs = table[end + 1 : end + 5], table[end + 6 :]
    assert len(discovery) == 4
    assert table[end + 5] == ""
    assert logs[0].startswith("Log lines, from the read to the push")
    assert len(logs) == 3
    for line, (name, shape) in zip(table[2:end], names, strict=True):
        assert line.startswith(f"{name} ")
        assert shape in line
    assert "daemon" not in output + said


@pytest.mark.program("nginx")
def test_the_daemon(payload, tmp_path):
    """Every route has a row, each ratio fits its figures, and nothing is left behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    output, _ = run(
        "--daemon", "--seconds=1", f"--payload={payload}", "--output=json", TMPDIR=str(temporary)
    )
    document = json.loads(output)
    assert document["cpus"] == os.cpu_count()
    assert document["rounds"] >= engine.ROUNDS
    rows = {(row["name"], row["payload"]): row for row in document["engine"]}
    assert list(rows) == subjects(str(payload))
    assert (document["expfmt_skipped"] is None) is bool(EXPFMT)
    memcpy, client = (rows[name, str(payload)] for name in (engine.MEMCPY, engine.REENCODE))
    for row in rows.values():
        assert math.isclose(row["bytes_per_second"], row["bytes"] / row["seconds"])
        for base, key in ((memcpy, "to_memcpy"), (client, "to_prometheus_client")):
            assert math.isclose(row[key], row["bytes_per_second"] / base["bytes_per_second"])
        if row["samples"] is not None:
            assert math.isclose(row["samples_per_second"], row["samples"] / row["seconds"])
    assert memcpy["bytes"] == payload.stat().st_size
    for name in ("pure engine, 1 label", *EXPFMT):
        assert rows[name, str(payload)]["samples"] == client["samples"]

    assert document["discovery"]["pods"] == 500
    assert min(document["discovery"].values()) > 0
    assert min(document["log_lines"].values()) > 0
    daemon = document["daemon"]
    assert daemon["nginx_skipped"] is None
    rows = {
        f"{row['server']}, {row['from_kubelet']} to {row['to_client']}": row
        for row in daemon["scrapes"]
    }
    assert list(rows) == [way.name for way in ways.WAYS]
    for row in rows.values():
        assert row["scrapes"] >= scrapes.ROUNDS
        assert 0 < row["first_byte_seconds"] <= row["last_byte_seconds"]
        assert row["cpu_seconds"] > 0
        assert row["peak_rss_bytes"] > 1 << 20
        packed = row["to_client"] == "gzip"
        assert (row["received_bytes"] < row["bytes"] == payload.stat().st_size) is packed
    assert len(daemon["ratios"]) == len(ways.COMPARED)
    for row in daemon["ratios"]:
        ours, other = rows[row["of"]], rows[row["to"]]
        assert math.isclose(row["cpu"], ours["cpu_seconds"] / other["cpu_seconds"])
    assert not list(temporary.iterdir())
    assert not left_behind(temporary)


def test_without_nginx(payload, tmp_path):
    """Other rows are measured, and the reason for the missing ones is given."""
    output, said = run("--daemon", "--seconds=1", f"--payload={payload}", PATH=str(tmp_path))
    assert "through the daemon" in said
    table = output.partition("The daemon, ")[2].splitlines()
    assert [line.split()[:2] for line in table[2:4]] == [["payload.txt", "kmproxy"]] * 2
    assert table[5] == "nginx was not measured: nginx is not on the PATH"
    assert len(table) == 6


@pytest.mark.program("expfmt")
def test_a_text_that_expfmt_does_not_take():
    """It has no row. The reason is the program's own message."""
    with expfmt.expfmt_subject("x", b"m 1 x\n", {}) as (subjects, reason):
        assert subjects == []
        assert reason.startswith(
            "text format parsing error in line 1: expected integer as timestamp"
        )


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (f"#!{shutil.which('sh')}", "nginx did not start: nginx: [emerg] no such directive"),
        ("#!/nowhere", "nginx cannot be run: No such file or directory"),
    ],
)
def test_with_an_nginx_that_does_not_start(payload, tmp_path, monkeypatch, first, reason):
    """The reason is nginx's own message, or the system's."""
    program = tmp_path / "nginx"
    program.write_text(f"{first}\necho 'nginx: [emerg] no such directive'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = []
    rows, skipped = scrapes.measure([("small", payload)], {"one": {}}, 0.1, said.append)
    assert skipped == reason
    assert [row.way for row in rows] == [ways.KMPROXY_IDENTITY, ways.KMPROXY_GZIP]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)]
)
def test_it_is_interrupted(payload, tmp_path, number, status):
    """All its processes end, and no file stays."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = start(
        "--daemon", "--seconds=1", f"--payload={payload}",
        # Where it strikes, in an import or a connection, a file may be left to the collector.
        warnings=("error", "ignore::ResourceWarning"), TMPDIR=str(temporary),
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not list(temporary.glob("*/kmproxy.log")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        output, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output) == (status, "")
    assert "Traceback" not in said
    assert not list(temporary.glob("kmproxy-*"))
    assert not left_behind(temporary)


def test_every_wrong_flag_is_told(capsys, tmp_path):
    """Exit status 2, and a line for each wrong flag."""
    assert main(["bench", "--seconds=0", "--output=xml", "--nodes=3", "stray"]) == 2
    output, said = capsys.readouterr()
    assert output == ""
    for part in ("--seconds: '0'", "--output: 'xml'", "unknown flag --nodes", "'stray'"):
        assert part in said
    cut = tmp_path / "cut"
    cut.write_bytes(b"a 1\nb")
    assert main(["bench", f"--payload={cut}", "--payload=/nowhere"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"kmproxy: --payload {cut}: the exposition must end with a newline",
        "kmproxy: --payload /nowhere: No such file or directory",
    ]


def test_help(capsys):
    """Every flag is explained."""
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--payload FILE", "--seconds N", "--daemon", "--output text|json", "default 20"):
        assert flag in text
    assert BenchConfig().output == "text"


def test_the_generated_payloads():
    """Sizes are as announced, and every line is parsed."""
    spaces = payloads.namespaces_of([])
    for text, least in (
        (payloads.cadvisor(spaces), 10_000_000),
        (payloads.kubelet(spaces), 6_000_000),
        (payloads.kube_state_metrics(spaces), 4_000_000),
    ):
        assert least <= len(text) < 2 * least
        enricher = Enricher(engine._labels(spaces, engine._ONE).lookup)
        assert enricher.feed(text).count(b',team="team-') == enricher.enriched > 0
        assert (enricher.unparsed, enricher.conflicts) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "the answer is 'http/1.1 503 busy'"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n0\r\n\r\n", "the answer is in gzip"),
        (b"HTTP/1.1 200 OK\r\n\r\n3\r\na 1", "the answer is cut short after 25 bytes"),
        (b"", "the answer is ''"),
    ],
)
def test_a_bad_scrape_is_no_figure(answer, problem):
    """An incomplete or unexpected answer ends the run."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=respond)
        thread.start()
        with pytest.raises(KmproxyError) as raised:
            scrapes.scrape(ways.KMPROXY_IDENTITY, server.getsockname()[1])
        thread.join()
    assert problem in str(raised.value)


def test_nobody_listens():
    """An unreachable server is reported with its route."""
    (port,) = processes.free_ports(1)
    with pytest.raises(KmproxyError, match=r"^nginx, gzip to gzip: the scrape failed: "):
        scrapes.scrape(ways.NGINX_PASSED_ON, port)


def test_cpu_time(monkeypatch):
    """The clock and /proc agree, within the precision of /proc."""
    clock = processes.cpu_seconds(os.getpid())

    def refuse(_):
        raise OSError

    monkeypatch.setattr(time, "clock_gettime", refuse)
    assert abs(processes.cpu_seconds(os.getpid()) - clock) < 0.5
