"""The filter: it reads kubectl's output, and adds labels to an exposition."""

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kmproxy
from kmproxy.config.commands import EnrichConfig
from kmproxy.config.loader import Layer, load_sections
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.enrich import PIECE, enrich, labels_of, read_namespaces
from kmproxy.errors import ConfigError
from kmproxy.kube.objects import ObjectMeta

ROOT = Path(kmproxy.__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
RECORDED = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*.prom"))
recorded = pytest.mark.parametrize(
    "name",
    RECORDED
    or [pytest.param("", marks=pytest.mark.skip("the recorded kubelet answers do not ship with it"))],
)  # fmt: skip

A = '{"kind":"Namespace","metadata":{"name":"a","labels":{"team":"x"},"annotations":{"o":"1"}}}'
B = '{"kind":"Namespace","metadata":{"name":"b","labels":null},"status":{"phase":"Active"}}'
POD = A.replace("Namespace", "Pod")
YAML_A = "kind: Namespace\nmetadata:\n  name: a\n  labels: {team: x}\n  annotations: {o: '1'}\n"
YAML_B = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n"
READ_A = ObjectMeta("a", {"team": "x"}, {"o": "1"})
READ_B = ObjectMeta("b")

TEXT = b"""\
# HELP m namespace="a"
# TYPE m gauge
m{namespace="a",pod="p"} 1 1795208082328
m{namespace="b"} 2
m{namespace=""} 3
m{exported_namespace="a"} 4
m 5
"""
ENRICHED = TEXT.replace(b'm{namespace="a"', b'm{namespace="a",team="x"')


def config(**flags):
    """The label settings of these flags."""
    named = {name.replace("_", "-"): tuple(values) for name, values in flags.items()}
    return load_sections([Layer("", "--", named)], EnrichConfig, LabelConfig)[1]


def known(namespaces, **flags):
    """The label map of these namespaces under these flags."""
    return labels_of(namespaces, config(**flags))


def command(*flags):
    """The command line of the filter."""
    return [sys.executable, "-m", "kmproxy", "enrich", *map(str, flags)]


def run(*flags, text=b""):
    """Exit status, output and standard error of the filter for a text."""
    done = subprocess.run(
        command(*flags), input=text, capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def file(tmp_path):
    """A function that writes kubectl's output to a file."""

    def write(content):
        path = tmp_path / "namespaces"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("content", "namespaces"),
    [
        ('{"kind":"List","apiVersion":"v1","items":[' + A + "," + B + "]}", [READ_A, READ_B]),
        ('{"kind":"NamespaceList","items":[{"metadata":{"name":"b"}}]}', [READ_B]),
        ('{"kind":"List","items":[]}', []),
        (A, [READ_A]),
        (f"\n  {A}\n", [READ_A]),
        (A.replace("{", "{\r\n").encode(), [READ_A]),
        (b"\xef\xbb\xbf" + A.encode(), [READ_A]),
        (A.replace('"kind":"Namespace"', '"kind":"PartialObjectMetadata"'), [READ_A]),
        ("kind: List\nitems:\n- metadata: {name: b}\n- " + A, [READ_B, READ_A]),
        (YAML_A, [READ_A]),
        (YAML_A.replace("\n", "\r\n"), [READ_A]),
        (f"---\n{YAML_A}---\n{YAML_B}...\n", [READ_A, READ_B]),
        (f"# made by hand\n---\n---\n{YAML_B}---\n", [READ_B]),
        (f"{YAML_A}---\nkind: List\nitems:\n- metadata: {{name: b}}\n", [READ_A, READ_B]),
        ("metadata: {name: '007', labels: {t: 'on'}}", [ObjectMeta("007", {"t": "on"})]),
        ("metadata: {name: u, annotations: {t: \u00fc\u20ac}}", [ObjectMeta("u", {}, {"t": "\u00fc\u20ac"})]),
    ],
)  # fmt: skip
def test_what_kubectl_prints_is_read(file, content, namespaces):
    """A List, single objects or several documents, as JSON or YAML."""
    assert read_namespaces(file(content)) == namespaces


@pytest.mark.parametrize(
    "content",
    [
        "", "  \n", "hello", "[]", "7", "{", "{}", "- a: [", "a: b: c", "\x00", "---\n- 1\n",
        A + B, A[:-1], b"\xff\xfe{\x00}\x00", b'{"metadata":{"name":"\xff"}}',
        '{"metadata":{}}', '{"metadata":{"name":null}}', '{"metadata":{"name":7}}',
        '{"metadata":null}', '{"items":null}', '{"items":[1]}', '{"items":{"a":1}}',
        '{"metadata":{"name":"a","labels":{"team":5}}}', '{"metadata":{"name":"a","labels":["x"]}}',
        "metadata: {name: a, labels: {team: 2024-99-99}}", "!!python/object/apply:os.getpid []",
        POD, '{"kind":"List","items":[' + A + "," + POD + "]}",
        '{"kind":"PodList","items":[{"metadata":{"name":"a"}}]}', '{"a":' * 99_999, "[" * 9_999,
    ],
)  # fmt: skip
def test_anything_else_is_refused(file, content):
    """One line names the file and the problem."""
    path = file(content)
    with pytest.raises(ConfigError) as caught:
        read_namespaces(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--namespaces {path}: ")
    assert "\n" not in problem


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    """The error has the system's reason."""
    with pytest.raises(ConfigError, match=r"--namespaces .*: (No such file|Is a directory)"):
        read_namespaces(str(tmp_path / name))


def test_labels_are_put_on():
    """Only samples of namespaces with labels change, and are counted."""
    sink = io.BytesIO()
    done = enrich(
        config(), SelectionConfig(), known([READ_A, READ_B]), io.BytesIO(TEXT), sink
    ).enricher
    assert sink.getvalue() == ENRICHED
    assert (done.samples, done.enriched, done.unparsed, done.conflicts) == (5, 1, 0, 0)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_long_input_comes_through_whole(end):
    """Complete to the last byte, however lines fall across pieces."""
    lines = [b'm{namespace="a",n="%d"} %d' % (n, n) for n in range(9999)]
    text = b"\n".join(lines) + end
    assert len(text) > 2 * PIECE
    sink = io.BytesIO()
    enrich(config(), SelectionConfig(), known([READ_A]), io.BytesIO(text), sink)
    assert sink.getvalue() == text.replace(b'"a"', b'"a",team="x"')


@pytest.mark.parametrize(
    ("flags", "line", "expected"),
    [
        ({"annotation": ["o=owner"]}, b'm{namespace="a"} 1', b'm{namespace="a",team="x",owner="1"} 1'),
        ({"label": ["*"]}, b'm{namespace="a"} 1', b'm{namespace="a",team="x"} 1'),
        ({"label": ["team=t"]}, b'm{namespace="a"} 1', b'm{namespace="a",t="x"} 1'),
        ({"label_default": ["team=none"]}, b'm{namespace="b"} 1', b'm{namespace="b",team="none"} 1'),
        ({"label_default": ["team=none"]}, b'm{namespace=""} 1', b'm{namespace=""} 1'),
        ({}, b'm{namespace="a",team="own"} 1', b'm{namespace="a",team="own"} 1'),
        ({"on_conflict": ["overwrite"]}, b'm{namespace="a",team="own"} 1', b'm{namespace="a",team="x"} 1'),
    ],
)  # fmt: skip
def test_the_label_flags_count(flags, line, expected):
    """The rules are the daemon's."""
    sink = io.BytesIO()
    enrich(
        config(**flags), SelectionConfig(), known([READ_A, READ_B], **flags), io.BytesIO(line), sink
    )
    assert sink.getvalue() == expected


def test_the_command(file):
    """Standard input to standard output, without other output."""
    assert run("--namespaces", file(YAML_A), text=TEXT) == (0, ENRICHED, "")
    assert run(f"-namespaces={file(A)}", "-label", "team", text=TEXT) == (0, ENRICHED, "")


def test_the_command_tells_what_it_could_not_do(file):
    """Unparsed lines and conflicts pass, and are counted."""
    text = b'm{namespace="a" 1\nnonsense\nm{namespace="a",team="own"} 1\n'
    status, output, said = run("--namespaces", file(A), text=text)
    assert (status, output) == (0, text)
    assert "2 lines could not be understood" in said
    assert "1 labels that samples already had were kept" in said
    said = run("--namespaces", file(A), "--on-conflict=overwrite", text=text)[2]
    assert "1 labels that samples already had were overwritten" in said


def test_a_label_that_stands_many_times(file):
    """Where it would be overwritten, the filter ends with one line that names label and metric."""
    text = TEXT + b'hostile{namespace="a",' + b'team="",' * 1000 + b"} 1\n"
    status, _, said = run("--namespaces", file(A), "--on-conflict=overwrite", text=text)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith("kmproxy: a sample repeats the label 'team', ")
    assert said.endswith("; the metric is 'hostile'\n")
    assert run("--namespaces", file(A), text=text)[0] == 0


@pytest.mark.parametrize("content", ["nonsense", POD])
def test_the_command_refuses_a_wrong_file(file, content):
    """Exit status 2, one plain line, and nothing on standard output."""
    status, output, said = run("--namespaces", file(content), text=TEXT)
    assert (status, output, said.count("\n")) == (2, b"", 1)
    assert said.startswith("kmproxy: --namespaces ")


def test_a_reader_that_leaves_is_no_accident(file):
    """A reader such as `head -1` ends the filter without a traceback."""
    with subprocess.Popen(
        command("--namespaces", file(A)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as filtering:  # fmt: skip
        filtering.stdout.close()
        filtering.stdout = None
        _, said = filtering.communicate(TEXT * 9999, timeout=60)
    assert filtering.returncode == 1
    assert b"Traceback" not in said
    assert b"Exception" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("times", [1, 9999])
def test_a_full_disk_is_one_plain_line(file, times):
    """A failed write is exit status 1 with the reason."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("--namespaces", file(A)), input=TEXT * times, cwd=ROOT,
            stdout=full, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(rb"kmproxy: .*No space left on device.*\n", done.stderr)


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_stream_is_one_plain_line(file, closed):
    """Without standard input or output: exit status 1, and no traceback."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command("--namespaces", file(A))]
    done = subprocess.run(
        shell, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 1
    assert re.fullmatch(rb"kmproxy: .+\n", done.stderr)


def test_an_interrupt_ends_it_quietly(file):
    """Ctrl-C within the input: exit status 130, no traceback."""
    with subprocess.Popen(
        command("--namespaces", file(A)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as filtering:  # fmt: skip
        filtering.stdin.write(b"m 1\n" * (PIECE // 4 + 9))
        filtering.stdin.flush()
        assert filtering.stdout.read(4) == b"m 1\n"
        filtering.send_signal(signal.SIGINT)
        _, said = filtering.communicate(timeout=60)
    assert (filtering.returncode, said) == (130, b"")


def teams(text):
    """A team for every namespace of a text but the first."""
    names = sorted({name.decode() for name in re.findall(rb'[{,]namespace="([^"]+)"', text)})
    return [ObjectMeta(name, {"team": f'team "{name}"'}) for name in names[1:]]


def labelled(line, namespaces):
    """The expected form of a recorded line, by a substitution for plain lines."""
    found = re.match(rb'[^#][^ ]*?[{,](namespace="([^"]+)")', line)
    labels = {space.name.encode(): space.labels["team"] for space in namespaces}
    if not found or found[2] not in labels:
        return line
    value = labels[found[2]].replace('"', '\\"').encode()
    return line[: found.end()] + b',team="' + value + b'"' + line[found.end() :]


@recorded
def test_recorded_answers_of_kubelets(name):
    """Only lines with a namespace differ, by exactly the label. All are parsed."""
    text = (CORPUS / name).read_bytes()
    namespaces = teams(text)
    sink = io.BytesIO()
    done = enrich(config(), SelectionConfig(), known(namespaces), io.BytesIO(text), sink).enricher
    expected = [labelled(line, namespaces) for line in text.split(b"\n")]
    assert sink.getvalue().split(b"\n") == expected
    assert (done.unparsed, done.conflicts) == (0, 0)
    assert done.enriched == sum(map(bytes.__ne__, expected, text.split(b"\n")))
    assert done.samples == sum(line[:1] not in {b"", b"#"} for line in text.split(b"\n"))


@recorded
def test_recorded_answers_without_labels_to_add(name):
    """Without labels to add, the output equals the input."""
    text = (CORPUS / name).read_bytes()
    for flags, namespaces in (({"label": ["absent"]}, teams(text)), ({}, [])):
        sink = io.BytesIO()
        assert (
            enrich(
                config(**flags),
                SelectionConfig(),
                known(namespaces, **flags),
                io.BytesIO(text),
                sink,
            ).enricher.enriched
            == 0
        )
        assert sink.getvalue() == text


@pytest.mark.program("promtool")
@recorded
def test_promtool_finds_nothing_new(file, name):
    """Prometheus' linter has no new complaint about the output."""

    def lint(exposition):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=exposition, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    text = (CORPUS / name).read_bytes()
    items = [{"metadata": {"name": space.name, "labels": space.labels}} for space in teams(text)]
    status, output, said = run("--namespaces", file(json.dumps({"items": items})), text=text)
    assert (status, said) == (0, "")
    assert (output != text) == (items != [])
    assert lint(output) == lint(text)


@pytest.mark.skipif(not RECORDED, reason="the recorded kubelet answers do not ship with it")
def test_recorded_namespaces():
    """The YAML that kubectl printed for a real cluster is read with its meaning."""
    found = {space.name: space for space in read_namespaces(str(CORPUS / "1.36/namespaces.yaml"))}
    assert found["frontend-service1"].labels["team"] == "frontend"
    assert found["payments"].labels["team"] == "payments"
    assert "team" not in found["no-team"].labels
