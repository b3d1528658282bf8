"""Completion in real shells: commands, flags, the words of a flag, and files."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

from kmproxy.cli.completion import SHELLS
from kmproxy.cli.flags import COMMANDS, flags_of
from kmproxy.cli.main import main
from kmproxy.config.settings import settings
from tests.support.documents import ROOT

# Each shell writes its line to a file at Ctrl-X Ctrl-D, as a terminal's text is full of redrawing.
STARTS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
bind -x '"\\C-x\\C-d": printf "%s\\n" "$READLINE_LINE" >line'
PS1=READY'>'; source ./script""",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        """autoload -Uz compinit; compinit -u -D; setopt no_list_beep no_auto_menu; unset zle_bracketed_paste
dump() { print -r -- $BUFFER >line }; zle -N dump; bindkey '^X^D' dump
PS1=READY'>'; source ./script""",
    ),
}


class Terminal:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, shell, folder):
        command, start = STARTS[shell]
        self.folder = folder
        (folder / "start").write_text(start)
        self.ours, theirs = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "$ "}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(self.ours, b"source ./start\n")
        seen, deadline = b"", time.monotonic() + 60
        while b"READY>" not in seen:  # the shell reads keys, and no lines, before it prints this
            assert time.monotonic() < deadline, seen
            if select.select([self.ours], [], [], 0.2)[0]:
                seen += os.read(self.ours, 65536)

    def written(self):
        """The line that the shell writes to the file."""
        line = self.folder / "line"
        deadline = time.monotonic() + 60
        while not line.exists() or not line.read_text().endswith("\n"):
            assert time.monotonic() < deadline
            if select.select([self.ours], [], [], 0.02)[0]:
                os.read(self.ours, 65536)
        text = line.read_text().rstrip("\n")
        line.unlink()
        return text

    def complete(self, typed):
        """The line after it was typed with a TAB behind it."""
        os.write(self.ours, b"\x15" + typed.encode() + b"\t\x18\x04")
        return self.written()

    def close(self):
        """Ends the shell."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture(params=STARTS)
def terminal(request, tmp_path):
    """A shell that has the script of `kmproxy completion`, in a folder with some files."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    (tmp_path / "script").write_text(SHELLS[request.param](), "utf-8")
    (tmp_path / "name spaces.yaml").touch()
    (tmp_path / "other").touch()
    opened = Terminal(request.param, tmp_path)
    yield opened
    opened.close()


LINES = {
    "kmproxy en": "kmproxy enrich ",
    "kmproxy compl": "kmproxy completion ",
    "kmproxy completion f": "kmproxy completion fish ",
    "kmproxy enrich --str": "kmproxy enrich --strict ",
    "kmproxy enrich --strict --names": "kmproxy enrich --strict --namespace",
    "kmproxy --node-na": "kmproxy --node-name-or-ip",
    "kmproxy serve --health-pr": "kmproxy serve --health-probe-bind-address",
    "kmproxy enrich --node-na": "kmproxy enrich --node-na",
    "kmproxy enrich --on-conflict o": "kmproxy enrich --on-conflict overwrite ",
    "kmproxy enrich --on-conflict=k": "kmproxy enrich --on-conflict=keep ",
    "kmproxy check --authorization-attributes n": "kmproxy check --authorization-attributes nodes/metrics ",
    "kmproxy check --output=j": "kmproxy check --output=json ",
    "kmproxy check --loki": "kmproxy check --loki",
    "kmproxy check --logs --loki": "kmproxy check --logs --loki-url",
    "kmproxy logs --all-n": "kmproxy logs --all-n",
    "kmproxy enrich --namespaces ot": "kmproxy enrich --namespaces other ",
    "kmproxy enrich --namespaces=na": "kmproxy enrich --namespaces=name\\ spaces.yaml ",
    "kmproxy --label ot": "kmproxy --label ot",
    "kmproxy enrich --strict --on-conf": "kmproxy enrich --strict --on-conflict",
}
"""What is typed, and the line after a TAB. A shell may put `=` or a blank behind a flag."""


def test_bash_and_zsh(terminal):
    """An interactive shell completes each line to the only one that is possible."""
    found = {typed: terminal.complete(typed) for typed in LINES}
    assert {typed: line.rstrip("= ") for typed, line in found.items()} == {
        typed: line.rstrip("= ") for typed, line in LINES.items()
    }


@pytest.mark.program("fish")
def test_fish(tmp_path):
    """It offers the same words, and for a flag its help."""
    (tmp_path / "script").write_text(SHELLS["fish"](), "utf-8")
    (tmp_path / "other").touch()
    asked = ["enrich --namesp", "check --output ", "check --logs --loki-u", "check --loki-u", "comp",
             "enrich --namespaces ot", "--label ot", "completion ", "enrich --on-conflict=k", "--all-n"]  # fmt: skip
    code = "source ./script\n" + "".join(
        f"complete -C 'kmproxy {each}'; echo =\n" for each in asked
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], cwd=tmp_path, check=True, capture_output=True,
        text=True, env=os.environ | {"HOME": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    answers = [each.splitlines() for each in done.stdout.split("=\n")[:-1]]
    words = dict(
        zip(asked, [[line.split("\t")[0] for line in each] for each in answers], strict=True)
    )
    assert words == {
        "enrich --namesp": ["--namespace", "--namespaces"],
        "check --output ": ["json", "text"],
        "check --logs --loki-u": ["--loki-url"],
        "check --loki-u": [],
        "comp": ["completion"],
        "enrich --namespaces ot": ["other"],
        "--label ot": [],
        "completion ": ["bash", "fish", "zsh"],
        "enrich --on-conflict=k": ["--on-conflict=keep"],
        "--all-n": ["--all-nodes"],
    }
    assert answers[0][1] == "--namespaces\tthe output of kubectl get namespaces -o json, or -o yaml"


def test_each_flag_is_in_each_script():
    """Every flag of every command, and its other names."""
    scripts = {shell: made() for shell, made in SHELLS.items()}
    for command in COMMANDS:
        assert all(command in script for script in scripts.values())
        for spec, _ in flags_of(command):
            for name in (spec.name, *spec.aliases):
                assert f"--{name} " in scripts["bash"] + " "
                assert f"--{name}" in scripts["zsh"]
                assert f"-l {name} " in scripts["fish"]


def test_every_list_of_words_is_known():
    """A flag that shows words in its help completes them."""
    for _, sections in COMMANDS.values():
        for section in sections:
            for spec in settings(section).values():
                if "|" in spec.metavar and spec.metavar.islower():
                    assert spec.metavar.split("|") == list(spec.choices)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command(capsys, shell):
    """`kmproxy completion` prints the script."""
    assert main(["completion", shell]) == 0
    assert capsys.readouterr() == (SHELLS[shell](), "")


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["bash", "zsh"], ["--shell=bash"]])
def test_no_shell(capsys, arguments):
    """Exit status 2, and one line with the names of the shells."""
    assert main(["completion", *arguments]) == 2
    said = "kmproxy: kmproxy completion needs the name of one shell: bash, zsh, fish\n"
    assert capsys.readouterr() == ("", said)


def test_the_documented_line(tmp_path):
    """`source <(kmproxy completion bash)` defines the completion of the word `kmproxy`."""
    script = f'kmproxy() {{ {sys.executable} -m kmproxy "$@"; }}; source <(kmproxy completion bash); complete -p kmproxy'
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "complete -F _kmproxy kmproxy\n"
