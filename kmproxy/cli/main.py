"""Runs the commands of the command line.

Knows argv, the environment, signals and exit statuses. Exit status 0: done; 1: failed at run
time; 2: the command line or the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from kmproxy import __version__
from kmproxy.cli.flags import COMMANDS, help_text
from kmproxy.cli.log import configure_log
from kmproxy.cli.read import read_config, read_logs, read_logs_with, read_sections, read_with
from kmproxy.config.commands import CheckConfig
from kmproxy.errors import ConfigError, KmproxyError, StartupError, StreamError
from kmproxy.exposition.engine import IN_USE, PROBLEM
from kmproxy.revision import checkout_revision, revision

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
        return _print(_version())
    _check_engine()
    return _FUNCTIONS[command](arguments)


def _check_engine() -> None:
    if PROBLEM:
        raise ConfigError([PROBLEM])
    from kmproxy.exposition.self_test import self_test  # noqa: PLC0415 - help does not need the engine

    if problem := self_test():
        raise StartupError(problem)


def _version() -> str:
    if PROBLEM:
        raise ConfigError([PROBLEM])
    built = f"revision {found}, " if (found := revision() or checkout_revision()) else ""
    return f"kmproxy {__version__} ({built}{IN_USE} engine)\n"


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
    configure_log(config.log)
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


def _logs(arguments: list[str]) -> int:
    command, warnings = read_logs(arguments, os.environ)
    configure_log(command.config.log)
    for warning in warnings:
        _log.warning("%s", warning)
    from kmproxy.daemon.logs import ship  # noqa: PLC0415 - loaded only for a valid command line

    async def run() -> None:
        stop = _stop_event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _nothing_to_reload)
        await ship(command, os.environ, stop)

    asyncio.run(run())
    _log.info("stopped")
    return 0


def _demo(arguments: list[str]) -> int:
    (config,) = read_sections("demo", arguments)
    with _extra("demo"):
        from kmproxy.demo import demo  # noqa: PLC0415 - only this command simulates a cluster

    async def run() -> None:
        await demo(config, _stop_event(signal.SIGHUP))

    asyncio.run(run())
    return 0


@contextmanager
def _extra(command: str) -> Iterator[None]:
    """Imports modules of the package kmproxy-demo. Raises StartupError if they are not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise StartupError(
            f"kmproxy {command} is not part of this installation ({error.name} is missing): "
            f"pip install 'kmproxy[demo]=={__version__}'"
        ) from error


def _enrich(arguments: list[str]) -> int:
    files, labels, selection = read_sections("enrich", arguments)
    from kmproxy.cli.progress import shown_progress  # noqa: PLC0415 - the daemon does not need it
    from kmproxy.enrich import enrich, labels_of, read_namespaces  # noqa: PLC0415 - nor this

    spaces = labels_of(read_namespaces(files.namespaces), labels)
    if sys.stdin is None or sys.stdout is None:
        raise StreamError("standard input or output is closed")
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with shown_progress(sys.stdin, sys.stdout, sys.stderr) as progress:
        copied = enrich(labels, selection, spaces, source, sink, progress)
    done = copied.enricher
    if copied.selector is not None and (merged := copied.selector.dropped["merged"]):
        _say(f"{merged} samples were left out: without the dropped labels they equal others")
    if long := spaces.left_out("value"):
        _say(f"values left out, each over {labels.max_label_value_bytes} bytes: {long}")
    if more := spaces.left_out("namespace") + spaces.left_out("map"):
        _say(f"values left out, because the labels of a namespace are too long together: {more}")
    if done.unparsed:
        _say(_not_understood(copied.unparsed_lines, done.unparsed))
    if done.conflicts:
        what = "kept" if labels.on_conflict == "keep" else "overwritten"
        _say(f"{done.conflicts} labels that samples already had were {what}")
    return 1 if files.strict and done.unparsed else 0


def _not_understood(numbers: list[int], count: int) -> str:
    """Says how many lines were not understood, and names the first ones by their numbers."""
    lines, were = ("lines", "were") if count > 1 else ("line", "was")
    more = f" and {count - len(numbers)} more" if count > len(numbers) else ""
    return (
        f"{count} {lines} could not be understood and {were} passed on unchanged: "
        f"{lines} {', '.join(map(str, numbers))}{more}"
    )


def _bench(arguments: list[str]) -> int:
    (config,) = read_sections("bench", arguments)
    with _extra("bench"):
        from kmproxy.bench.run import bench  # noqa: PLC0415 - only this command measures

    return _print(bench(config, _say))


def _completion(arguments: list[str]) -> int:
    from kmproxy.cli.completion import SHELLS  # noqa: PLC0415 - only this command needs it

    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise ConfigError([f"kmproxy completion needs the name of one shell: {', '.join(SHELLS)}"])
    return _print(SHELLS[arguments[0]]())


def _check(arguments: list[str]) -> int:
    logs = None
    if {"-logs", "--logs", "-logs=true", "--logs=true"} & set(arguments):
        logs, (own,), warnings = read_logs_with(arguments, os.environ, CheckConfig)
        config = logs.config
    else:
        config, (own,), warnings = read_with(arguments, os.environ, CheckConfig)
    configure_log(config.log)
    from kmproxy.check.preflight import check  # noqa: PLC0415 - the daemon does not need it
    from kmproxy.check.report import MARKS, PLAIN_MARKS  # noqa: PLC0415

    marks = MARKS
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
        if not sys.stdout.encoding.lower().startswith("utf"):
            marks = PLAIN_MARKS

    def show(text: str) -> None:
        _print(f"{text}\n")

    tries = partial(check, config, warnings, os.environ, try_node=own.try_node, logs=logs)
    if own.output == "json":
        report = asyncio.run(tries(announce=_say, show=None))
        show(json.dumps(report.document(), indent=2))
    else:
        report = asyncio.run(tries(announce=show, show=show))
        show(f"\n{report.table(marks)}")
    return 0 if report.ok else 1


_FUNCTIONS: Mapping[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "check": _check,
    "demo": _demo,
    "enrich": _enrich,
    "logs": _logs,
    "bench": _bench,
    "completion": _completion,
}


def _stop_event(*more: signal.Signals) -> asyncio.Event:
    """An event that is set by SIGTERM, SIGINT and the signals `more`.

    A signal of `more` that the process ignores, for example after nohup, does not set it.
    """
    stop = asyncio.Event()

    def stopping(number: signal.Signals) -> None:
        _log.info("%s: finishing the running requests", number.name)
        stop.set()

    heeded = [number for number in more if signal.getsignal(number) is not signal.SIG_IGN]
    for number in (signal.SIGTERM, signal.SIGINT, *heeded):
        asyncio.get_running_loop().add_signal_handler(number, stopping, number)
    return stop


def _nothing_to_reload() -> None:
    """Log that SIGHUP has no effect. Other daemons often read their files again on SIGHUP."""
    _log.info(
        "SIGHUP has no effect: kmproxy reads changed tokens, certificates and web config files "
        "by itself, and other settings only at its start"
    )


def _say(line: str) -> None:
    print(f"kmproxy: {line}", file=sys.stderr)
