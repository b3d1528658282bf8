"""The man page of kmproxy, which `make man` writes: the texts of `--help`, as groff reads them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from kmproxy import __version__
from kmproxy.cli.flags import COMMANDS, default_text, flags_of

_STATUSES = {
    "0": "done",
    "1": "failed at run time, with one line on standard error",
    "2": "the command line or the configuration is wrong, with a line for each problem",
}


def man_page() -> str:
    """The page, in the man macros."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield f'.TH KMPROXY 1 "" "kmproxy {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"kmproxy \- adds a namespace's labels to its metrics from the kubelet"
    yield ".SH SYNOPSIS"
    yield ".B kmproxy\n[\\fICOMMAND\\fR] [\\fIFLAGS\\fR]"
    yield ".SH COMMANDS"
    for name, (what, _) in COMMANDS.items():
        yield f".TP\n.B {name}\n{_text(what)}"
    for name in COMMANDS:
        if flags := list(flags_of(name)):
            yield f'.SH "FLAGS OF {name.upper()}"'
            for spec, default in flags:
                yield f".TP\n\\fB{_text(f'--{spec.name}')}\\fR \\fI{_text(spec.metavar)}\\fR"
                yield _text(spec.help + default_text(spec, default))
    yield '.SH "EXIT STATUS"'
    for status, what in _STATUSES.items():
        yield f".TP\n.B {status}\n{_text(what)}"


def _text(text: str) -> str:
    """A text as groff prints it: neither a request nor an escape, and with its own dashes."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(man_page(), "utf-8")
