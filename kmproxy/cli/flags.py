"""The flags of each command: how they are split, and the text of `--help`.

Knows argv and settings. Must not know files, nor what a command does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kmproxy import __version__
from kmproxy.config.commands import BenchConfig, CheckConfig, DemoConfig, EnrichConfig
from kmproxy.config.loader import IGNORED
from kmproxy.config.logs import LOGS_SECTIONS, NOT_OF_LOGS
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.config.sections import SECTIONS
from kmproxy.config.settings import Setting, settings
from kmproxy.config.types import parse_text
from kmproxy.config.variables import variable

COMMANDS: Mapping[str, tuple[str, tuple[type[Any], ...]]] = {
    "serve": ("the daemon; the default command", tuple(SECTIONS.values())),
    "check": (
        "the preflight: tries permissions, certificate and metrics with the flags of serve",
        (CheckConfig, *SECTIONS.values()),
    ),
    "demo": ("a simulated cluster with the daemon in front; no cluster needed", (DemoConfig,)),
    "enrich": (
        "the labels for an exposition, from standard input to standard output",
        (EnrichConfig, LabelConfig, SelectionConfig),
    ),
    "logs": (
        "the logs of a node's containers, to Loki, with the labels of their namespaces",
        tuple(LOGS_SECTIONS.values()),
    ),
    "bench": ("measurements of the engine and of the whole daemon, side by side", (BenchConfig,)),
    "completion": ("the script that completes commands and flags in bash, zsh or fish", ()),
}
"""For each command, its description and the sections whose settings are its flags."""


CONFIG_FILE: Setting = Setting(
    "config",
    parse_text,
    "FILE",
    "the same settings as YAML, without dashes; flags and variables win",
)


IGNORED_BOOLEANS = frozenset({"zap-devel"})


def split_flags(
    arguments: Sequence[str], booleans: frozenset[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Split a command line in the syntax of Go's flag package, with one dash or two.

    Returns the values of each flag in order, and a line for each problem. A flag
    without `=` is true if it is one of `booleans`. Any other flag takes the next argument
    as its value, or has no value if no argument follows. A value that begins with a dash
    needs `=`.
    """
    flags: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if not argument.startswith("-") or not name or name.startswith("-"):
            problems.append(f"{argument!r} is not a flag")
            continue
        given = flags.setdefault(name, ())
        if equals:
            flags[name] = (*given, value)
        elif name in booleans:
            flags[name] = (*given, "true")
        elif rest and not rest[-1].startswith("-"):
            flags[name] = (*given, rest.pop())
    return flags, problems


def settings_of(*sections: type[Any]) -> dict[str, Setting]:
    """Return the settings of sections by their names."""
    return {spec.name: spec for section in sections for spec in settings(section).values()}


def booleans(sections: Iterable[type[Any]]) -> frozenset[str]:
    """Return the names of the flags that need no value."""
    return frozenset(name for name, spec in settings_of(*sections).items() if spec.boolean)


def flags_of(command: str) -> Iterator[tuple[Setting, object]]:
    """Yields the flags of a command in order, each with its default; without a default None."""
    if command in {"serve", "check", "logs"}:
        yield CONFIG_FILE, None
    left_out = NOT_OF_LOGS if command == "logs" else frozenset()
    for section in COMMANDS[command][1]:
        blank = section()
        for key, spec in settings(section).items():
            if spec.name not in left_out:
                yield spec, getattr(blank, key)


def help_text(command: str) -> str:
    """The text of `--help`. It is generated from the settings, so the two cannot differ."""
    lines = [
        f"kmproxy {__version__} - adds a namespace's labels to its metrics from the kubelet",
        "",
    ]
    if command == "serve":
        lines += ["Usage: kmproxy [COMMAND] [FLAGS]", "", "Commands (each has its own --help):"]
        lines += [f"  {name:<10} {what}" for name, (what, _) in COMMANDS.items()]
        lines += ["", "Flags of serve:"]
    elif command == "completion":
        lines += ["Usage: kmproxy completion bash|zsh|fish", "", COMMANDS[command][0], ""]
        lines += ["  bash  source <(kmproxy completion bash)"]
        lines += ["  zsh   source <(kmproxy completion zsh)"]
        lines += ["  fish  kmproxy completion fish | source"]
    else:
        lines += [f"Usage: kmproxy {command} [FLAGS]", "", f"{COMMANDS[command][0]}", "", "Flags:"]
    for spec, default in flags_of(command):
        lines += _flag_lines(spec, default)
    if command in {"serve", "check", "logs"}:
        one, several = variable("node-port"), variable("label")
        text = (
            f"Each of these flags has an environment variable, such as {one} for --node-port. "
            f"In the variable of a repeatable flag, such as {several}, each line is a value. A "
            "flag wins over its variable, a variable over the file. Empty variables have no effect."
        )
        lines += ["", *textwrap.wrap(text, 90, break_on_hyphens=False)]
    if command == "serve":
        ignored = ", ".join(f"-{name}" for name in IGNORED)
        text = f"Flags of kubelet-meta-proxy that are accepted and have no effect: {ignored}"
        lines += ["", *textwrap.wrap(text, 90, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def default_text(spec: Setting, default: object) -> str:
    """The notes behind the help of a flag: whether it is repeatable, its default, its aliases."""
    notes = []
    if spec.repeatable:
        notes.append("repeatable")
    if default is not None and default is not False and default != ():
        shown = default if isinstance(default, tuple) and spec.repeatable else (default,)
        seconds = spec.metavar == "DURATION"
        notes.append("default " + ", ".join(f"{v:g}s" if seconds else f"{v}" for v in shown))
    notes += [f"also --{alias}" for alias in spec.aliases]
    return f" ({'; '.join(notes)})" if notes else ""


def _flag_lines(spec: Setting, default: object) -> Iterator[str]:
    yield f"  --{spec.name} {spec.metavar}".rstrip()
    text = spec.help + default_text(spec, default)
    indent = " " * 8
    yield from textwrap.wrap(
        text, 90, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
