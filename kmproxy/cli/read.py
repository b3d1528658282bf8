"""Reads the configuration of a command from flags, the environment and the YAML file.

Knows files that flags name. Must not know what a command does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from kmproxy.cli.flags import (
    COMMANDS,
    CONFIG_FILE,
    IGNORED_BOOLEANS,
    booleans,
    settings_of,
    split_flags,
)
from kmproxy.config.commands import CheckConfig
from kmproxy.config.loader import Layer, load, load_logs, load_sections
from kmproxy.config.logs import LOGS_SECTIONS, NOT_OF_LOGS, LogsCommand
from kmproxy.config.sections import SECTIONS, Config
from kmproxy.config.settings import Setting
from kmproxy.config.types import shown_key
from kmproxy.config.variables import PREFIX, read_variables
from kmproxy.config.yaml_text import RepeatedKeyError, key_lines, parse_yaml
from kmproxy.errors import ConfigError

_T = TypeVar("_T")
_Loading = Callable[[Sequence[Layer]], tuple[_T, list[str]]]


def read_config(
    arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[Config, list[str]]:
    """Read the configuration of `serve` from flags, the environment and the YAML file they name.

    Returns the configuration, and a line for each setting that has no effect. Raises ConfigError
    with every problem of all three sources.
    """
    config, _, warnings = read_with(arguments, environment)
    return config, warnings


def read_with(
    arguments: Sequence[str], environment: Mapping[str, str], *own: type[Any]
) -> tuple[Config, list[Any], list[str]]:
    """Read the configuration of `serve`, the sections `own`, which no file sets, and warnings."""
    split = split_flags(arguments, booleans(SECTIONS.values()) | IGNORED_BOOLEANS)
    return _read(load, split, environment, settings_of(*SECTIONS.values()), own)


def read_logs(
    arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[LogsCommand, list[str]]:
    """Read the configuration of `logs` from flags, the environment and the YAML file they name.

    Returns the configuration, and a line for each setting that has no effect. Raises ConfigError
    with every problem of all three sources.
    """
    command, _, warnings = read_logs_with(arguments, environment)
    return command, warnings


def read_logs_with(
    arguments: Sequence[str], environment: Mapping[str, str], *own: type[Any]
) -> tuple[LogsCommand, list[Any], list[str]]:
    """Read the configuration of `logs`, the sections `own`, which no file sets, and warnings."""
    sections = LOGS_SECTIONS.values()
    known = {name: spec for name, spec in settings_of(*sections).items() if name not in NOT_OF_LOGS}
    split = split_flags(arguments, booleans([*sections, *own]))
    return _read(load_logs, split, environment, known, own)


_FILES = {CONFIG_FILE.name: CONFIG_FILE}


def _read(
    loading: _Loading[_T],
    split: tuple[dict[str, tuple[str, ...]], list[str]],
    environment: Mapping[str, str],
    known: Mapping[str, Setting],
    own: Sequence[type[Any]],
) -> tuple[_T, list[Any], list[str]]:
    """The configuration that `loading` makes, the sections `own`, and warnings.

    `split` holds the flags of the command line, and problems with them. `known` are the settings
    that variables may give. Variables for check alone have no effect here.
    """
    flags, problems = split
    of_check = settings_of(CheckConfig)
    variables, warnings = read_variables(environment, {**known, **of_check, **_FILES})
    mine = {name: variables.pop(name) for name in of_check.keys() & variables.keys()}
    mine |= {name: flags.pop(name) for name in settings_of(*own).keys() & flags.keys()}
    sections = []
    try:
        sections = load_sections([Layer("command line", "--", mine)], *own) if own else []
    except ConfigError as error:
        problems += error.problems
    layers = _layers(flags, variables, problems)
    loaded, unused = _loaded(loading, layers, problems)
    return loaded, sections, warnings + unused


def _layers(
    flags: dict[str, tuple[str, ...]], variables: dict[str, tuple[str, ...]], problems: list[str]
) -> list[Layer]:
    """The layers of the files that flags or variables name, the variables and the flags.

    A file that cannot be read is added to `problems`.
    """
    layers = []
    name = CONFIG_FILE.name
    if flags.get(name) == ():
        problems.append(f"--{name}: the value is missing")
    by_variable = variables.pop(name, ())
    for path in flags.pop(name, by_variable):
        try:
            layers.append(read_yaml(path))
        except ConfigError as error:
            problems += error.problems
    layers.append(Layer("environment", PREFIX, variables))
    layers.append(Layer("command line", "--", flags))
    return layers


def _loaded(
    loading: _Loading[_T],
    layers: Sequence[Layer],
    problems: Sequence[str],
) -> tuple[_T, list[str]]:
    """The configuration from layers, and warnings. Raises ConfigError with `problems`, too."""
    try:
        loaded = loading(layers)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(list(problems))
    return loaded


def read_sections(command: str, arguments: Sequence[str]) -> list[Any]:
    """Read the sections of a command that has only flags. Raises ConfigError."""
    sections = COMMANDS[command][1]
    flags, problems = split_flags(arguments, booleans(sections))
    if command == "enrich" and "namespaces" not in flags:
        problems.append("--namespaces FILE is missing: kubectl get namespaces -o json > FILE")
    try:
        built = load_sections([Layer("command line", "--", flags)], *sections)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    return built


def read_yaml(path: str) -> Layer:
    """Read the mapping in a YAML file, which is empty for an empty file.

    Raises ConfigError if the file cannot be read or holds no mapping from text keys.
    """
    import yaml  # noqa: PLC0415 - most daemons have only flags

    try:
        text = Path(path).read_text("utf-8")
        document = parse_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "the file is not text"
        raise ConfigError([f"--config {path}: {reason}"]) from error
    except RepeatedKeyError as error:
        what = f"the key {shown_key(error.key)!r} is repeated in line {error.line}"
        raise ConfigError([f"--config {path}: {what}"]) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "the file is not YAML"
        strange = isinstance(error, yaml.composer.ComposerError | yaml.constructor.ConstructorError)
        if strange or "tag" in what:  # the message quotes it: perhaps a part of a password
            what = "the file is not YAML: put text that begins with *, & or ! in quotes"
        raise ConfigError([f"--config {path}: {what}{where}"]) from error
    if document is None:
        document = {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError([f"--config {path}: a mapping from settings to values is expected"])
    return Layer(path, "", document, partial(key_lines, text))
