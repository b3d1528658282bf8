"""The filter: lines that are not understood, gzip, and progress on a terminal."""

import gzip
import io
import os
import pty
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kmproxy
from kmproxy.cli.progress import AFTER, Progress
from kmproxy.config.loader import Layer, load_sections
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.enrich import MAX_SHOWN, PIECE, enrich, labels_of
from kmproxy.errors import StreamError
from kmproxy.kube.objects import ObjectMeta

ROOT = Path(kmproxy.__file__).parents[1]
SPACES = "metadata: {name: a, labels: {team: x}}\n"
LINE = b'm{namespace="a"} 1\n'
ENRICHED = b'm{namespace="a",team="x"} 1\n'
WRONG = b'm{namespace="a" 1\n'


class Pieces(io.BytesIO):
    """A stream that gives at most a random number of bytes at once, but 2 at first."""

    def read(self, size=-1):
        return super().read(min(size, random.Random(self.tell()).choice([2, 3, 40, 4000])))


def filtered(text, selection=None, source=io.BytesIO):
    """The filter after it has copied a text, and the output."""
    sink = io.BytesIO()
    (config,) = load_sections([Layer("", "--", {})], LabelConfig)
    labels = labels_of([ObjectMeta("a", {"team": "x"})], config)
    done = enrich(config, selection or SelectionConfig(), labels, source(text), sink)
    return done, sink.getvalue()


def run(tmp_path, *flags, text):
    """Exit status, output and standard error of the command."""
    (tmp_path / "spaces.yaml").write_text(SPACES)
    command = [sys.executable, "-m", "kmproxy", "enrich", f"--namespaces={tmp_path}/spaces.yaml"]
    done = subprocess.run(
        [*command, *flags], input=text, capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (LINE * 3, []),
        (WRONG, [1]),
        (LINE + WRONG, [2]),
        (LINE + WRONG[:-1], [2]),
        (b"\n\n# a comment {\n\n" + WRONG + LINE + b"x\ry\n", [5, 7]),
        (LINE * 9000 + WRONG + LINE * 9000 + b"x\n" + LINE, [9001, 18002]),
        (LINE + b"x" * (1 << 20) + b"y\n" + LINE + WRONG, [2, 4]),
        (b"# " + b"x" * (1 << 20) + b"\n" + WRONG, [2]),
        (WRONG * 99, list(range(1, MAX_SHOWN + 1))),
    ],
)
def test_the_first_lines_that_are_not_understood(text, numbers):
    """They are numbered from 1 as in the input, however it is cut."""
    for source in (io.BytesIO, Pieces) if len(text) < PIECE else (io.BytesIO,):
        done, _ = filtered(text, source=source)
        assert done.unparsed_lines == numbers
        assert done.enricher.unparsed >= len(numbers)


def test_lines_that_are_left_out_count():
    """The numbers are those of the input, also if a selection leaves samples out."""
    done, output = filtered(
        b"n 1\n" + LINE + WRONG, SelectionConfig(drop_metric=(re.compile("n"),))
    )
    assert output == ENRICHED + WRONG
    assert done.unparsed_lines == [3]


def test_strict(tmp_path):
    """With --strict a line that is not understood is exit status 1. The output is the same."""
    text = LINE + WRONG + LINE + b"nonsense\n"
    output = ENRICHED + WRONG + ENRICHED + b"nonsense\n"
    said = "2 lines could not be understood and were passed on unchanged: lines 2, 4\n"
    assert run(tmp_path, text=text) == (0, output, f"kmproxy: {said}")
    assert run(tmp_path, "--strict", text=text) == (1, output, f"kmproxy: {said}")
    assert run(tmp_path, "--strict", text=LINE) == (0, ENRICHED, "")
    status, _, said = run(tmp_path, "--strict", text=WRONG * 12)
    assert (status, said.partition("12 lines")[1]) == (1, "12 lines")
    assert said.endswith(": lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more\n")
    assert run(tmp_path, text=WRONG)[2].endswith(
        "1 line could not be understood and was passed on unchanged: line 1\n"
    )


@pytest.mark.parametrize("source", [io.BytesIO, Pieces])
def test_gzip_stays_gzip(source):
    """A gzip input of one or more members is one exposition, and so is the gzip output."""
    text = LINE * 20000
    for zipped in (gzip.compress(text), gzip.compress(text[:50]) + gzip.compress(text[50:])):
        assert gzip.decompress(filtered(zipped, source=source)[1]) == ENRICHED * 20000
    many = b"".join(map(gzip.compress, [LINE] * 1500))
    assert gzip.decompress(filtered(many)[1]) == ENRICHED * 1500
    assert gzip.decompress(filtered(gzip.compress(b""))[1]) == b""
    assert filtered(b"")[1] == b""


@pytest.mark.parametrize("cut", [3, 11, 40, -1])
def test_a_damaged_gzip_input_is_an_error(cut):
    """An input that was cut short does not pass as whole."""
    zipped = gzip.compress(random.Random(1).randbytes(99).hex().encode())
    with pytest.raises(StreamError, match="the input's gzip body was cut short"):
        filtered(zipped[:cut])
    with pytest.raises(StreamError, match="the input's gzip body is damaged"):
        filtered(zipped + b"beyond" * 9)


def test_a_damaged_gzip_input_on_the_command_line(tmp_path):
    """One line, and exit status 1."""
    said = "kmproxy: the input's gzip body was cut short\n"
    assert run(tmp_path, text=gzip.compress(LINE)[:-1])[::2] == (1, said)


def test_progress():
    """Nothing within two seconds. Then a line now and then, which is erased at the end."""
    terminal, now = io.StringIO(), [100.0]
    progress = Progress(terminal, 40_000_000, lambda: now[0])
    progress.add(5_000_000)
    now[0] += AFTER - 0.1
    progress.add(5_000_000)
    assert terminal.getvalue() == ""
    now[0] += 0.6
    progress.add(15_000_000)
    progress.add(1)
    assert terminal.getvalue() == "\r\x1b[Kkmproxy: 25.0 MB of 40.0 MB (62%) read, 10.0 MB/s"
    progress.end()
    assert terminal.getvalue().endswith("MB/s\r\x1b[K")
    endless = io.StringIO()
    Progress(endless, None, iter([0.0, 3.0]).__next__).add(6_000_000_000)
    assert endless.getvalue() == "\r\x1b[Kkmproxy: 6.00 GB read, 2.00 GB/s"


def test_progress_is_for_a_terminal(tmp_path):
    """A terminal at standard error shows it, a file or a pipe never does."""
    (tmp_path / "spaces.yaml").write_text(SPACES)
    (tmp_path / "text").write_bytes(LINE * 9000)
    early = (
        "import sys, kmproxy.cli.progress as p; p.AFTER = 0.0;"
        "from kmproxy.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", early, "enrich", f"--namespaces={tmp_path}/spaces.yaml"]
    ours, theirs = pty.openpty()
    try:
        for terminal in (theirs, subprocess.PIPE):
            with (tmp_path / "text").open("rb") as source:
                done = subprocess.run(
                    command, stdin=source, stdout=subprocess.PIPE, stderr=terminal, cwd=ROOT,
                    check=True, timeout=60,
                )  # fmt: skip
            assert done.stdout == ENRICHED * 9000
        assert done.stderr == b""
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.fullmatch(
        r"(\r\x1b\[Kkmproxy: 0\.\d MB of 0\.2 MB \(\d+%\) read, [\d.]+ [MG]B/s)+\r\x1b\[K", shown
    )
