"""The command line: its parts, their meaning, and its errors."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kmproxy
from kmproxy.cli import main as cli
from kmproxy.cli.flags import COMMANDS, help_text, split_flags
from kmproxy.cli.log import JsonFormatter, TextFormatter
from kmproxy.cli.main import main
from kmproxy.cli.read import read_config
from kmproxy.config.loader import IGNORED
from kmproxy.config.logs import NOT_OF_LOGS
from kmproxy.config.settings import settings
from kmproxy.config.types import Address
from kmproxy.errors import ConfigError
from kmproxy.exposition.engine import IN_USE
from kmproxy.telemetry import open_registry, render

ROOT = Path(kmproxy.__file__).parents[1]
BOOLEANS = frozenset({"all-nodes", "enable-http2"})


def config(*arguments):
    """The configuration of a command line without warnings."""
    read, warnings = read_config(arguments)
    assert warnings == []
    return read


def problems(*arguments):
    """The problems of a command line of the daemon."""
    with pytest.raises(ConfigError) as caught:
        read_config(arguments)
    return list(caught.value.problems)


def run(*arguments, home, **more):
    """Exit status, output and standard error of a process outside of any cluster."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "KUBERNETES"))}
    done = subprocess.run(
        [sys.executable, "-m", "kmproxy", *arguments], cwd=ROOT, timeout=60, check=False,
        env=environment | {"HOME": str(home)} | more, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def file(tmp_path):
    """A function that writes a configuration file and returns its path."""

    def write(content, name="kmproxy.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], {}),
        (["--label=team"], {"label": ("team",)}),
        (["-label=team"], {"label": ("team",)}),
        (["--label", "team"], {"label": ("team",)}),
        (["-label", "team", "-label=tier"], {"label": ("team", "tier")}),
        (["--label=team=squad"], {"label": ("team=squad",)}),
        (["--label="], {"label": ("",)}),
        (["--label", ""], {"label": ("",)}),
        (["--label"], {"label": ()}),
        (["--label", "--node-port", "1"], {"label": (), "node-port": ("1",)}),
        (["--label=-x"], {"label": ("-x",)}),
        (["--all-nodes"], {"all-nodes": ("true",)}),
        (["-all-nodes=false"], {"all-nodes": ("false",)}),
        (["--all-nodes", "--label", "a"], {"all-nodes": ("true",), "label": ("a",)}),
        (["--listen", ":8080"], {"listen": (":8080",)}),
        (["--unknown", "x", "--other"], {"unknown": ("x",), "other": ()}),
    ],
)
def test_flags_are_split(arguments, flags):
    """As in Go's flag package: one dash or two, `=` or the next argument, no value if boolean."""
    assert split_flags(arguments, BOOLEANS) == (flags, [])


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["stray"], ["stray"]),
        (["--all-nodes", "false"], ["false"]),
        (["--label=a", "b", "c"], ["b", "c"]),
        (["-"], ["-"]),
        (["--"], ["--"]),
        (["---label=a"], ["---label=a"]),
        (["-=x", "--=x"], ["-=x", "--=x"]),
        ([""], [""]),
    ],
)
def test_what_is_no_flag(arguments, wrong):
    """Each argument that is not a flag is a problem. The others are still read."""
    assert split_flags(arguments, BOOLEANS)[1] == [
        f"{argument!r} is not a flag" for argument in wrong
    ]


PROXY = ("-node-port=443", "-enable-http2=false", "-kube-apiserver=api.example.com",
         "-node-name-or-ip=node-1", "-metrics-port=8080")  # fmt: skip


def test_the_arguments_of_kubelet_meta_proxy():
    """The usual arguments of kubelet-meta-proxy keep their meaning."""
    read = config(*PROXY)
    assert (read.kubelet.node, read.kubelet.port) == ("node-1", 443)
    assert read.kubelet.apiserver == "api.example.com"
    assert read.server.listen == Address("", 8080)
    assert read.server.enable_http2 is False


@pytest.mark.parametrize(
    ("argument", "section", "attribute", "value"),
    [
        ("-max-concurrency=7", "server", "max_concurrency", 7),
        ("-cache-sync-timeout=2m", "apiserver", "cache_sync_timeout", 120.0),
        ("-health-probe-bind-address=:9081", "server", "telemetry_listen", Address("", 9081)),
        ("-node-ip=10.0.0.7", "kubelet", "node", "10.0.0.7"),
        ("-node-name-or-ip=10.0.0.7", "kubelet", "node", "10.0.0.7"),
        ("-node-cadvisor-path=/cadvisor", "kubelet", "cadvisor_path", "/cadvisor"),
        ("-kubeconfig=/etc/kubeconfig", "apiserver", "kubeconfig", "/etc/kubeconfig"),
        ("-metrics-port=9000", "server", "listen", Address("", 9000)),
        ("-enable-http2=false", "server", "enable_http2", False),
        ("-metrics-secure=false", "server", "metrics_secure", False),
        ("-metrics-cert-path=/certs", "server", "metrics_cert_path", "/certs"),
        ("-metrics-cert-name=a.crt", "server", "metrics_cert_name", "a.crt"),
        ("-metrics-cert-key=a.key", "server", "metrics_cert_key", "a.key"),
    ],
)
def test_a_flag_of_kubelet_meta_proxy(argument, section, attribute, value):
    """The same spelling works, with one dash or two, with `=` or without."""
    name, _, text = argument.partition("=")
    for spelling in ([argument], [f"-{argument}"], [name, text]):
        if text != "false" or len(spelling) == 1:
            assert getattr(getattr(config(*spelling), section), attribute) == value


@pytest.mark.parametrize(
    "argument",
    [
        "-metrics-bind-address=:8443", "-metrics-bind-address=0",
        "-webhook-cert-path=/certs", "-webhook-cert-name=tls.crt",
        "-webhook-cert-key=tls.key", "-zap-devel", "-zap-devel=true", "-zap-encoder=json",
        "-zap-log-level=debug", "-zap-stacktrace-level=error", "-zap-time-encoding=iso8601",
    ],
)  # fmt: skip
def test_a_flag_of_kubelet_meta_proxy_without_meaning(argument):
    """It is accepted in any position, changes nothing, and a line gives the reason."""
    for arguments in ((argument, *PROXY), (*PROXY, argument)):
        read, warnings = read_config(arguments)
        assert read == config(*PROXY)
        assert len(warnings) == 1
        assert argument.partition("=")[0].strip("-") in warnings[0]


def test_a_configuration_file(file):
    """The same names without dashes. The command line has precedence over any file."""
    path = file("node-port: 1\nlabel: [a, b=c]\nall-nodes: true\ncache-sync-timeout: 5s\n")
    for arguments in (["--config", path, "--node-port=2"], ["-node-port", "2", f"-config={path}"]):
        read = config(*arguments)
        assert read.kubelet.port == 2
        assert read.labels.label == ("a", "b=c")
        assert read.kubelet.all_nodes is True
        assert read.apiserver.cache_sync_timeout == 5.0


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_configuration_file(file, content):
    """An empty file sets nothing."""
    assert config("--config", file(content)) == config()


def test_of_two_files_the_later_wins(file):
    """Each file is a layer over the one before."""
    base = file("node-port: 1\nmax-concurrency: 9\n", "base.yaml")
    read = config("--config", base, "--config", file("node-port: 2\n"))
    assert (read.kubelet.port, read.server.max_concurrency) == (2, 9)


@pytest.mark.parametrize(
    "content",
    [
        "- label\n", "just text", "5", "label: [a\n", "a: b: c", "\tlabel: a", "5: x\n", "? [a]\n: b",
        "null: x\n", "label: a\n---\nlabel: b\n", b"label: \xff\n", b"\x00",
        "label: !!python/object/apply:os.getpid []\n", "label: *nowhere\n", "label: 2024-99-99\n",
    ],
)  # fmt: skip
def test_a_broken_file(file, content):
    """One line names the file and the problem."""
    path = file(content)
    (problem,) = problems("--config", path)
    assert problem.startswith(f"--config {path}: ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label: a\nlisten: :1\nlabel: b\n", "the key 'label' is repeated in line 3"),
        ("label: a\n'label': b\n", "the key 'label' is repeated in line 2"),
        ("{label: a,\n label: b}\n", "the key 'label' is repeated in line 2"),
        (
            "kubelet:\n  tls_config:\n    ca_file: a\n    min_version: TLS12\n    ca_file: b\n",
            "the key 'ca_file' is repeated in line 5",
        ),
        ("kubelet: {}\nlabel: a\nkubelet: {}\n", "the key 'kubelet' is repeated in line 3"),
        ("label: [a, {b: 1, b: 2}]\n", "the key 'b' is repeated in line 1"),
    ],
)
def test_a_key_that_stands_twice(file, text, says):
    """A repeated key is an error in every mapping of the file."""
    assert says in " ".join(problems("--config", file(text)))


def test_a_key_that_is_merged_stands_once(file):
    """A key from a merged alias can be overridden, at any depth."""
    text = (
        "label: &l [team]\n"
        "kubelet: {tls_config: &t {min_version: TLS12, server_name: a}, "
        "oauth2: {client_id: c, client_secret: s, token_url: 'https://h/', "
        "tls_config: {<<: *t, server_name: b}}}\n"
    )
    read, _ = read_config(["--config", file(text)])
    assert read.access.tls.server_name == "a"
    assert read.access.credential.tls.server_name == "b"


@pytest.mark.parametrize(
    "text", ["*planted", "!planted", "!planted!x y", "!<planted> x", "[&planted 1, &planted 2]"]
)
def test_a_password_that_is_no_yaml(file, text):
    """The error says that such a text needs quotes, and does not show the password."""
    (problem,) = problems("--config", file(f"kubelet:\n  bearer_token: {text}\n"))
    assert "in line 2" in problem
    assert "planted" not in problem


def test_a_file_that_is_not_there(tmp_path):
    """The system's reason is given, beside the other problems."""
    missing = str(tmp_path / "missing")
    assert problems("--config", missing, "--bogus") == [
        f"--config {missing}: No such file or directory", "unknown flag --bogus",
    ]  # fmt: skip
    (problem,) = problems("--config", str(tmp_path))
    assert "directory" in problem


def test_a_file_has_to_be_named():
    """`--config` without a value is a problem, as for other flags."""
    (problem,) = problems("--config")
    assert "--config" in problem


def test_every_problem_of_both_is_told(file):
    """All problems of the command line, the file's syntax and its values, at once."""
    path = file("node-port: 0\nlables: [a]\n")
    found = problems("--config", path, "stray", "--max-concurrency=0", "--on-conflict")
    assert len(found) == 5
    for part in (f"node-port: '0' is not a port (1 to 65535) ({path})", "did you mean label?",
                 "'stray'", "--max-concurrency: ", "--on-conflict: the value is missing"):  # fmt: skip
        assert any(part in line for line in found)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["bogus"], ["bogus", "serve", "demo", "enrich"]),
        ([""], ["''", "serve"]),
        (["--bogus"], ["unknown flag --bogus"]),
        (["serve", "--node-prot=1"], ["--node-prot", "did you mean --node-port?"]),
        (["-lable=team"], ["--lable", "did you mean --label?"]),
        (["--label=team", "serve"], ["'serve' is not a flag"]),
        (["--enable-http2"], ["--enable-http2"]),
        (["--enable-http2=true", "--node-port=x"], ["http2", "'x' is not a port"]),
        (["serve", "--listen", "--bogus"], ["--listen: the value is missing", "--bogus"]),
        (["demo", "--nodes=0", "--all-nodes"], ["--nodes: ", "unknown flag --all-nodes"]),
        (["serve", "--output=json"], ["unknown flag --output"]),
        (["check", "--output", "--bogus"], ["--output: the value is missing", "--bogus"]),
        (
            ["check", "--output=yaml", "--label=a=b", "--label=c=b"],
            ["'yaml'", "already makes the label 'b'"],
        ),
        (["check", "--config=missing"], ["--config missing: No such file"]),
        (["demo", "--config=x"], ["unknown flag --config"]),
        (["enrich"], ["--namespaces"]),
        (["enrich", "--namespaces="], ["--namespaces: the value is empty"]),
        (["enrich", "--namespaces"], ["--namespaces: the value is missing"]),
        (["enrich", "stray", "--bogus"], ["--bogus", "'stray'", "--namespaces"]),
        (["enrich", "--namespaces=f", "--label=a-b", "--label=a.b"], ["'a_b'"]),
        (["enrich", "--namespaces=f", "--listen=:1"], ["unknown flag --listen"]),
        (["enrich", "--namespaces=f", "stray"], ["'stray' is not a flag"]),
    ],
)
def test_a_wrong_command_line(capsys, arguments, parts):
    """Exit status 2, and every problem on a line of its own on standard error."""
    assert main(arguments) == 2
    output, said = capsys.readouterr()
    assert output == ""
    assert all(part in said for part in parts)
    assert all(line.startswith("kmproxy: ") for line in said.splitlines())


def test_there_is_no_cluster(tmp_path):
    """Without an API server, or with a missing file: exit status 2, one plain line."""
    status, output, said = run(*PROXY, home=tmp_path)
    assert (status, output, said.count("\n")) == (2, "", 1)
    assert said.startswith("kmproxy: no API server")
    status, _, said = run("--kubeconfig", "missing", home=tmp_path)
    assert (status, said) == (2, "kmproxy: --kubeconfig: missing: No such file or directory\n")


def test_failing_at_run_time(tmp_path):
    """Exit status 1 and one plain line: a pod without its token."""
    status, output, said = run(
        f"--service-account-dir={tmp_path}", home=tmp_path, KUBERNETES_SERVICE_HOST="127.0.0.1"
    )
    assert (status, output, said.count("\n")) == (1, "", 1)
    assert said.startswith(f"kmproxy: service-account token {tmp_path}/token: ")


@pytest.mark.parametrize(
    ("command", "flag"),
    [*((name, "--help") for name in ("serve", "check", "demo", "enrich")),
     ("serve", "-h"), ("demo", "-help"), ("enrich", "-h")],
)  # fmt: skip
def test_every_command_explains_itself(capsys, command, flag):
    """Exit status 0, on standard output, whatever other flags are given."""
    assert main([command, flag, "--bogus"]) == 0
    output, said = capsys.readouterr()
    assert (output, said) == (help_text(command), "")


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_the_version(capsys, flag):
    """It is the version of the package, with the revision of a checkout and the engine in use."""
    assert main([flag]) == 0
    output, said = capsys.readouterr()
    assert re.fullmatch(
        rf"kmproxy {re.escape(kmproxy.__version__)} "
        rf"\((revision [0-9a-f]{{12}}(-dirty)?, )?{IN_USE} engine\)\n",
        output,
    )
    assert said == ""


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1f3a5c7e9b2d\n", "revision 1f3a5c7e9b2d, "), ("1f3a5c7e9b2d-dirty", "revision 1f3a5c7e9b2d-dirty, "),
        ("", ""), ("\n", ""), ("a b", ""), ("x" * 65, ""), ("\x1b[1m", ""),
    ],
)  # fmt: skip
def test_the_revision(capsys, tmp_path, monkeypatch, written, shown):
    """The revision of the build is shown beside the version and in the metric, if it is valid."""
    (tmp_path / "REVISION").write_text(written)
    monkeypatch.setattr("kmproxy.revision.__file__", str(tmp_path / "revision.py"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kmproxy {kmproxy.__version__} ({shown}{IN_USE} engine)\n"
    found = shown.removeprefix("revision ").removesuffix(", ")
    assert f'revision="{found}"' in render(open_registry()).decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_mentions_every_setting(command):
    """Each flag with its explanation and aliases, in lines that fit."""
    text = help_text(command)
    joined = " ".join(text.split())
    for section in COMMANDS[command][1]:
        for spec in settings(section).values():
            if command == "logs" and spec.name in NOT_OF_LOGS:
                continue
            assert f"\n  --{spec.name} {spec.metavar}".rstrip() in text
            assert spec.help in joined
            assert all(f"also --{alias}" in joined for alias in spec.aliases)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "part",
    [*COMMANDS, *(f"-{name}" for name in IGNORED), "--config FILE", "default team", "default keep",
     "default localhost", "default /metrics/cadvisor", "default :8080", "default :8081", "default 5",
     "default 30s", "default info", "default text", "default https"],
)  # fmt: skip
def test_the_help_of_the_daemon(part):
    """It names the commands, every default, and the ignored flags."""
    assert part in " ".join(help_text("serve").split())


def record(message, *, level=logging.WARNING, error=None):
    """A log record of 2026-11-20, 20:52:45.007 UTC."""
    made = logging.LogRecord("kmproxy.x", level, "x.py", 1, message, ("5",), error)
    made.created, made.msecs = 1795207965.007, 7.0
    return made


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_log_lines(monkeypatch, zone):
    """One line of text or one JSON object per record, with the time in UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        text = TextFormatter().format(record("it is %s"))
        fields = json.loads(JsonFormatter().format(record("it\n\u00efs %s")))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert text == "2026-11-20T20:52:45.007Z WARNING it is 5"
    assert fields == {
        "time": "2026-11-20T20:52:45.007Z", "level": "warning", "logger": "kmproxy.x",
        "message": "it\n\u00efs 5",
    }  # fmt: skip


def test_a_traceback_in_json_stays_on_the_line():
    """A traceback is the value of `exception`, on the same line."""
    try:
        int("planted")
    except ValueError:
        line = JsonFormatter().format(record("%s", error=sys.exc_info()))
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("'planted'")


@pytest.mark.parametrize("chosen", ["text", "json"])
def test_the_log_is_as_configured(tmp_path, chosen):
    """A warning has the configured format, on standard error."""
    said = run("-zap-devel", "--log-format", chosen, home=tmp_path)[2].splitlines()
    assert len(said) == 2
    if chosen == "json":
        line = json.loads(said[0])
        assert line["level"] == "warning"
        assert "--zap-devel" in line["message"]
    else:
        assert "Z WARNING --zap-devel" in said[0]
    quiet = run("-zap-devel", "--log-level=error", home=tmp_path)[2].splitlines()
    assert quiet == said[1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_the_end(number):
    """SIGTERM and SIGINT set the daemon's event, and kill nothing."""
    stop = cli._stop_event()
    assert not stop.is_set()
    os.kill(os.getpid(), number)
    async with asyncio.timeout(30):
        await stop.wait()
