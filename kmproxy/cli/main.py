"""The command line: makes a configuration of flags, variables and YAML, and runs the commands.

Knows argv, the environment, files named by flags, signals, exit statuses and
the format of log lines. Exit status 0: done; 1: failed at run time; 2: the command
line or the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kmproxy import __version__
from kmproxy.config.commands import BenchConfig, CheckConfig, DemoConfig, EnrichConfig
from kmproxy.config.loader import IGNORED, Layer, load, load_sections
from kmproxy.config.sections import SECTIONS, Config, LabelConfig, LogConfig, SelectionConfig
from kmproxy.config.settings import Setting, settings
from kmproxy.config.types import parse_text, shown_key
from kmproxy.config.variables import PREFIX, read_variables, variable
from kmproxy.config.yaml_text import RepeatedKeyError, parse_yaml
from kmproxy.errors import ConfigError, KmproxyError, StartupError, StreamError, one_line
from kmproxy.revision import revision

COMMANDS: Mapping[str, tuple[str, tuple[type[Any], ...]]] = {
    "serve": ("the daemon; also what kmproxy without a command does", tuple(SECTIONS.values())),
    "check": (
        "what serve needs with the same flags, tried: permissions, certificate, metrics",
        (CheckConfig, *SECTIONS.values()),
    ),
    "demo": ("a simulated cluster with the daemon in front; no cluster needed", (DemoConfig,)),
    "enrich": (
        "labels on an exposition, from standard input",
        (EnrichConfig, LabelConfig, SelectionConfig),
    ),
    "bench": ("the engine and the whole daemon, measured side by side", (BenchConfig,)),
}
"""For each command, its description and the sections whose settings are its flags."""

_CONFIG_FILE: Setting = Setting(
    "config",
    parse_text,
    "FILE",
    "the same settings as YAML, without dashes; flags and variables win",
)
_IGNORED_BOOLEANS = frozenset({"zap-devel"})

_log = logging.getLogger("kmproxy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = "serve"
    if arguments and not arguments[0].startswith("-"):
        command = arguments.pop(0)
    try:
        return _run(command, arguments)
    except ConfigError as error:
        for problem in error.problems:
            _say(problem)
        return 2
    except KmproxyError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output has gone: the interpreter must not flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise ConfigError([f"unknown command {command!r}; the commands are: {known}"])
    if {"-h", "-help", "--help"} & set(arguments):
        return _print(help_text(command))
    if {"-version", "--version"} & set(arguments):
        built = f" (revision {found})" if (found := revision()) else ""
        return _print(f"kmproxy {__version__}{built}\n")
    from kmproxy.exposition.self_test import self_test  # noqa: PLC0415 - help does not need the engine

    if problem := self_test():
        raise StartupError(problem)
    match command:
        case "enrich":
            return _enrich(arguments)
        case "demo":
            return _demo(arguments)
        case "bench":
            return _bench(arguments)
        case "check":
            return _check(arguments)
        case _:
            return _serve(arguments)


def _print(text: str) -> int:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError(f"standard output: {error.strerror}") from error
    return 0


def _serve(arguments: list[str]) -> int:
    config, warnings = read_config(arguments, os.environ)
    _configure_log(config.log)
    for warning in warnings:
        _log.warning("%s", warning)
    from kmproxy.daemon.daemon import serve  # noqa: PLC0415 - loaded only for a valid command line

    async def run() -> None:
        stop = _stop_event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _nothing_to_reload)
        await serve(config, os.environ, stop)

    asyncio.run(run())
    _log.info("stopped")
    return 0


def _demo(arguments: list[str]) -> int:
    (config,) = _sections("demo", arguments)
    from kmproxy.demo import demo  # noqa: PLC0415 - only this command simulates a cluster

    async def run() -> None:
        await demo(config, _stop_event(signal.SIGHUP))

    asyncio.run(run())
    return 0


def _enrich(arguments: list[str]) -> int:
    files, labels, selection = _sections("enrich", arguments)
    from kmproxy.enrich import enrich, labels_of, read_namespaces  # noqa: PLC0415 - the daemon does not need it

    spaces = labels_of(read_namespaces(files.namespaces), labels)
    if sys.stdin is None or sys.stdout is None:
        raise StreamError("standard input or output is closed")
    pipeline = enrich(labels, selection, spaces, sys.stdin.buffer, sys.stdout.buffer)
    done = pipeline.enricher
    if pipeline.selector is not None and (merged := pipeline.selector.dropped["merged"]):
        _say(f"{merged} samples were left out: without the dropped labels they were another's")
    if long := spaces.left_out("value"):
        _say(f"values left out, each over {labels.max_label_value_bytes} bytes: {long}")
    if more := spaces.left_out("namespace") + spaces.left_out("map"):
        _say(f"values left out, as the labels of their namespaces are too long together: {more}")
    if done.unparsed:
        _say(f"{done.unparsed} lines could not be understood and were passed on unchanged")
    if done.conflicts:
        what = "kept its own" if labels.on_conflict == "keep" else "had it replaced"
        _say(f"{done.conflicts} times a sample bore a label already, and {what}")
    return 0


def _bench(arguments: list[str]) -> int:
    (config,) = _sections("bench", arguments)
    from kmproxy.bench.run import bench  # noqa: PLC0415 - only this command measures

    return _print(bench(config, _say))


def _check(arguments: list[str]) -> int:
    config, (own,), warnings = _read(arguments, os.environ, CheckConfig)
    _configure_log(config.log)
    from kmproxy.check.preflight import check  # noqa: PLC0415 - the daemon does not need it
    from kmproxy.check.report import MARKS, PLAIN_MARKS  # noqa: PLC0415

    marks = MARKS
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
        if not sys.stdout.encoding.lower().startswith("utf"):
            marks = PLAIN_MARKS

    def show(text: str) -> None:
        _print(f"{text}\n")

    tries = partial(check, config, warnings, os.environ, try_node=own.try_node)
    if own.output == "json":
        report = asyncio.run(tries(announce=_say, show=None))
        show(json.dumps(report.document(), indent=2))
    else:
        report = asyncio.run(tries(announce=show, show=show))
        show(f"\n{report.table(marks)}")
    return 0 if report.ok else 1


def _stop_event(*more: signal.Signals) -> asyncio.Event:
    """An event that is set by SIGTERM, SIGINT and the signals `more`.

    A signal of `more` that the process ignores, for example after nohup, does not set it.
    """
    stop = asyncio.Event()

    def stopping(number: signal.Signals) -> None:
        _log.info("%s: finishing what is under way", number.name)
        stop.set()

    heeded = [number for number in more if signal.getsignal(number) is not signal.SIG_IGN]
    for number in (signal.SIGTERM, signal.SIGINT, *heeded):
        asyncio.get_running_loop().add_signal_handler(number, stopping, number)
    return stop


def _nothing_to_reload() -> None:
    """Log that SIGHUP has no effect. Other daemons often read their files again on SIGHUP."""
    what = "tokens, certificates and the web config are read again by themselves"
    _log.info("SIGHUP: nothing to do: %s, other settings at the next start", what)


def read_config(
    arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[Config, list[str]]:
    """Read the configuration of `serve` from flags, the environment and the YAML file they name.

    Returns the configuration, and a line for each setting that has no effect. Raises ConfigError
    with every problem of all three sources.
    """
    config, _, warnings = _read(arguments, environment)
    return config, warnings


def _read(
    arguments: Sequence[str], environment: Mapping[str, str], *own: type[Any]
) -> tuple[Config, list[Any], list[str]]:
    """Read the configuration of `serve`, the sections `own`, which no file sets, and warnings."""
    flags, problems = split_flags(arguments, _booleans(SECTIONS.values()) | _IGNORED_BOOLEANS)
    of_serve, of_check = _settings_of(*SECTIONS.values()), _settings_of(CheckConfig)
    files = {_CONFIG_FILE.name: _CONFIG_FILE}
    variables, warnings = read_variables(environment, of_serve | of_check | files)
    # Variables for check alone have no effect on serve. As flags, serve does not know them.
    mine = {name: variables.pop(name) for name in of_check.keys() & variables.keys()}
    mine |= {name: flags.pop(name) for name in _settings_of(*own).keys() & flags.keys()}
    sections = []
    try:
        sections = load_sections([Layer("command line", "--", mine)], *own) if own else []
    except ConfigError as error:
        problems += error.problems
    layers = []
    name = _CONFIG_FILE.name
    if flags.get(name) == ():
        problems.append(f"--{name}: the value is missing")
    by_variable = variables.pop(name, ())
    for path in flags.pop(name, by_variable):
        try:
            layers.append(Layer(path, "", read_yaml(path)))
        except ConfigError as error:
            problems += error.problems
    layers.append(Layer("environment", PREFIX, variables))
    layers.append(Layer("command line", "--", flags))
    try:
        config, unused = load(layers)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    return config, sections, warnings + unused


def _settings_of(*sections: type[Any]) -> dict[str, Setting]:
    return {spec.name: spec for section in sections for spec in settings(section).values()}


def _sections(command: str, arguments: Sequence[str]) -> list[Any]:
    """Read the sections of a command that has only flags. Raises ConfigError."""
    sections = COMMANDS[command][1]
    flags, problems = split_flags(arguments, _booleans(sections))
    if command == "enrich" and "namespaces" not in flags:
        problems.append("--namespaces FILE is missing: kubectl get namespaces -o json > FILE")
    try:
        built = load_sections([Layer("command line", "--", flags)], *sections)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    return built


def _booleans(sections: Iterable[type[Any]]) -> frozenset[str]:
    return frozenset(name for name, spec in _settings_of(*sections).items() if spec.boolean)


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
            problems.append(f"{argument!r} is no flag")
            continue
        given = flags.setdefault(name, ())
        if equals:
            flags[name] = (*given, value)
        elif name in booleans:
            flags[name] = (*given, "true")
        elif rest and not rest[-1].startswith("-"):
            flags[name] = (*given, rest.pop())
    return flags, problems


def read_yaml(path: str) -> dict[str, Any]:
    """Read the mapping in a YAML file, which is empty for an empty file.

    Raises ConfigError if the file cannot be read or holds no mapping from text keys.
    """
    import yaml  # noqa: PLC0415 - most daemons have only flags

    try:
        document = parse_yaml(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError([f"--config {path}: {reason}"]) from error
    except RepeatedKeyError as error:
        what = f"the key {shown_key(error.key)!r} stands twice, again in line {error.line}"
        raise ConfigError([f"--config {path}: {what}"]) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "it is not YAML"
        strange = isinstance(error, yaml.composer.ComposerError | yaml.constructor.ConstructorError)
        if strange or "tag" in what:  # the message quotes it: perhaps a part of a password
            what = "it is not YAML; text that begins with *, & or ! wants quotes"
        raise ConfigError([f"--config {path}: {what}{where}"]) from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError([f"--config {path}: a mapping from settings to values is expected"])
    return document


def help_text(command: str) -> str:
    """The text of `--help`. It is generated from the settings, so the two cannot differ."""
    lines = [f"kmproxy {__version__} - a namespace's labels on every kubelet metric of it", ""]
    if command == "serve":
        lines += ["Usage: kmproxy [COMMAND] [FLAGS]", "", "Commands (each has its own --help):"]
        lines += [f"  {name:<8} {what}" for name, (what, _) in COMMANDS.items()]
        lines += ["", "Flags of serve:", *_flag_lines(_CONFIG_FILE, None)]
    else:
        lines += [f"Usage: kmproxy {command} [FLAGS]", "", f"{COMMANDS[command][0]}", "", "Flags:"]
    if command == "check":
        lines += _flag_lines(_CONFIG_FILE, None)
    for section in COMMANDS[command][1]:
        blank = section()
        for key, spec in settings(section).items():
            lines += _flag_lines(spec, getattr(blank, key))
    if command in {"serve", "check"}:
        one, several = variable("node-port"), variable("label")
        text = (
            f"Each of these flags may be given by an environment variable, {one} for --node-port; "
            f"of a repeatable one, such as {several}, each line is a value. A flag wins over its "
            "variable, and that over the file. An empty variable counts as none."
        )
        lines += ["", *textwrap.wrap(text, 90, break_on_hyphens=False)]
    if command == "serve":
        ignored = ", ".join(f"-{name}" for name in IGNORED)
        text = f"Flags of kubelet-meta-proxy that are accepted and have no effect: {ignored}"
        lines += ["", *textwrap.wrap(text, 90, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def _flag_lines(spec: Setting, default: object) -> Iterator[str]:
    yield f"  --{spec.name} {spec.metavar}".rstrip()
    notes = []
    if spec.repeatable:
        notes.append("repeatable")
    if default is not None and default is not False and default != ():
        shown = default if isinstance(default, tuple) and spec.repeatable else (default,)
        seconds = spec.metavar == "DURATION"
        notes.append("default " + ", ".join(f"{v:g}s" if seconds else f"{v}" for v in shown))
    notes += [f"also --{alias}" for alias in spec.aliases]
    text = spec.help + (f" ({'; '.join(notes)})" if notes else "")
    indent = " " * 8
    yield from textwrap.wrap(
        text, 90, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


class _TextFormatter(logging.Formatter):
    """Formats a log record as one line: time in UTC, level, message."""

    def __init__(self) -> None:
        self.converter = time.gmtime
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """The record as one line, for any content of the message. A traceback follows the line."""
        return one_line(super().formatMessage(record))


class _JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object in one line."""

    def __init__(self) -> None:
        self.converter = time.gmtime
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. A traceback becomes the value of `exception`."""
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}Z"
        fields = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def _configure_log(config: LogConfig) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if config.format == "json" else _TextFormatter())
    logging.basicConfig(level=config.level.upper(), handlers=[handler])


def _say(line: str) -> None:
    print(f"kmproxy: {line}", file=sys.stderr)
