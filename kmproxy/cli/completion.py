"""The scripts that complete commands, flags and their values in bash, zsh and fish.

Knows the syntax of these shells. The settings say what there is to complete, as for `--help`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kmproxy.cli.flags import COMMANDS, flags_of, settings_of
from kmproxy.config.commands import CheckConfig
from kmproxy.config.settings import Setting

_CHECK_LOGS = "check-logs"
"""The name that the scripts give to `check --logs`, whose flags are those of `logs`."""

_FILES = {"FILE", "DIR"}


@dataclass(frozen=True, slots=True)
class _Flag:
    """A flag by one of its names, and what is known about its value."""

    name: str
    spec: Setting

    @property
    def values(self) -> str:
        """The words that complete the value, `@files`, or nothing."""
        if self.spec.choices:
            return " ".join(self.spec.choices)
        return "@files" if self.spec.metavar in _FILES else ""


def _flags(command: str) -> list[_Flag]:
    """The flags of a command, with their aliases and the two that each command has."""
    if command == _CHECK_LOGS:
        specs = [*settings_of(CheckConfig).values(), *(spec for spec, _ in flags_of("logs"))]
    else:
        specs = [spec for spec, _ in flags_of(command)]
    names = [_Flag(name, spec) for spec in specs for name in (spec.name, *spec.aliases)]
    return [*names, *_EACH]


def _common(name: str, text: str) -> _Flag:
    # `settings` tells a flag without a value by its parser; these two are read by nobody.
    return _Flag(name, Setting(name, str, "", text))


_EACH = (_common("help", "the flags of the command"), _common("version", "the version"))


def _commands() -> list[str]:
    return [*COMMANDS, _CHECK_LOGS]


# In the three scripts the command is the first word, or `serve` if that is a flag. `check` with
# --logs has other flags.
_BASH = """\
# Completes kmproxy in bash: source <(kmproxy completion bash)
_kmproxy_flags() {{
  case $1 in
{flags}
  esac
}}
_kmproxy_values() {{
  case $1 in
{values}
  esac
}}
_kmproxy() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local cmd=serve flag= values= word
  COMPREPLY=()
  if [[ $COMP_CWORD -gt 1 && ${{COMP_WORDS[1]}} != -* ]]; then cmd=${{COMP_WORDS[1]}}; fi
  if [[ $cmd = check ]]; then
    for word in "${{COMP_WORDS[@]}}"; do
      if [[ $word = --logs || $word = -logs ]]; then cmd={check_logs}; fi
    done
  fi
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "{commands}" -- "$cur")
    return
  fi
  if [[ $cmd = completion ]]; then
    mapfile -t COMPREPLY < <(compgen -W "{shells}" -- "$cur")
    return
  fi
  # Readline makes a word of each equals sign.
  if [[ $cur = = ]]; then flag=$before cur=
  elif [[ $before = = ]]; then flag=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $cur != -* ]]; then flag=$before
  fi
  if [[ $flag = -* ]]; then
    flag=${{flag#-}}
    values=$(_kmproxy_values "$cmd ${{flag#-}}")
    if [[ $values = @files ]]; then
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
    elif [[ $values != @none ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
      return
    elif [[ $before = = || ${{COMP_WORDS[COMP_CWORD]}} = = ]]; then
      mapfile -t COMPREPLY < <(compgen -W "true false" -- "$cur")
      return
    fi
  fi
  mapfile -t COMPREPLY < <(compgen -W "$(_kmproxy_flags "$cmd")" -- "$cur")
}}
complete -F _kmproxy kmproxy
"""


def bash() -> str:
    """The script for bash 4 or newer."""
    flags = [
        f'    {command}) echo "{" ".join(f"--{each.name}" for each in _flags(command))}" ;;'
        for command in _commands()
    ]
    by_values: dict[str, list[str]] = {}
    for command in _commands():
        for each in _flags(command):
            values = "@none" if not each.spec.metavar else each.values
            by_values.setdefault(values, []).append(f'"{command} {each.name}"')
    by_values.pop("", None)
    values_lines = [
        f'    {"|".join(patterns)}) echo "{values}" ;;' for values, patterns in by_values.items()
    ]
    return _BASH.format(
        flags="\n".join(flags),
        values="\n".join(values_lines),
        commands=" ".join(COMMANDS),
        shells=" ".join(SHELLS),
        check_logs=_CHECK_LOGS,
    )


_ZSH = """\
#compdef kmproxy
# Completes kmproxy in zsh: source <(kmproxy completion zsh), or as the file _kmproxy in $fpath
_kmproxy() {{
  local cmd=serve
  local -a commands
  commands=(
{commands}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe -t commands command commands
    return
  fi
  if [[ $words[2] != -* ]]; then
    cmd=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  if [[ $cmd == check && ( -n ${{words[(r)--logs]}} || -n ${{words[(r)-logs]}} ) ]]; then
    cmd={check_logs}
  fi
  case $cmd in
    completion) _values shell {shells} ;;
{cases}
  esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _kmproxy "$@"
else
  compdef _kmproxy kmproxy
fi
"""


def _zsh_spec(each: _Flag) -> str:
    """The argument of zsh's `_arguments` for a flag."""
    text = each.spec.help.translate({ord(c): f"\\{c}" for c in "\\[]:"})
    many = "*" if each.spec.repeatable else ""
    if not each.spec.metavar:
        return _quoted(f"{many}--{each.name}[{text}]")
    action = {"@files": "_files", "": " "}.get(each.values, f"({each.values})")
    meta = each.spec.metavar.replace(":", "\\:")
    return _quoted(f"{many}--{each.name}=[{text}]:{meta}:{action}")


def zsh() -> str:
    """The script for zsh, which may also be a file of its function path."""
    cases = []
    for command in _commands():
        if command != "completion":
            specs = "".join(f" \\\n        {_zsh_spec(each)}" for each in _flags(command))
            cases.append(f"    {command})\n      _arguments -s{specs} ;;")
    commands = [
        _quoted(f"{name}:{what.replace(':', chr(92) + ':')}")
        for name, (what, _) in COMMANDS.items()
    ]
    return _ZSH.format(
        commands="\n".join(f"    {each}" for each in commands),
        shells=" ".join(SHELLS),
        cases="\n".join(cases),
        check_logs=_CHECK_LOGS,
    )


_FISH = """\
# Completes kmproxy in fish: kmproxy completion fish | source
function __kmproxy_is
    set -l words (commandline -opc)
    set -e words[1]
    set -l cmd serve
    if set -q words[1]; and not string match -q -- '-*' $words[1]
        set cmd $words[1]
    end
    if test $cmd = check; and string match -qr -- '^--?logs$' $words
        set cmd {check_logs}
    end
    contains -- $cmd $argv
end
function __kmproxy_first
    test (count (commandline -opc)) -eq 1
end
complete -c kmproxy -f
"""


def fish() -> str:
    """The script for fish 3 or newer."""
    return _FISH.format(check_logs=_CHECK_LOGS) + "".join(f"{line}\n" for line in _fish_lines())


def _fish_lines() -> Iterator[str]:
    for name, (what, _) in COMMANDS.items():
        yield f"complete -c kmproxy -n __kmproxy_first -a {name} -d {_fish_quoted(what)}"
    yield f"complete -c kmproxy -n '__kmproxy_is completion' -a '{' '.join(SHELLS)}'"
    commands_of: dict[str, list[str]] = {}
    for command in _commands():
        for each in _flags(command):
            value = {"@files": " -r -F", "": " -x"}.get(each.values, f" -x -a '{each.values}'")
            line = f"-l {each.name}{value if each.spec.metavar else ''}"
            line += f" -d {_fish_quoted(each.spec.help)}"
            commands_of.setdefault(line, []).append(command)
    for line, commands in commands_of.items():
        yield f"complete -c kmproxy -n '__kmproxy_is {' '.join(commands)}' {line}"


def _quoted(text: str) -> str:
    """A text as one word of zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    """A text as one word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""For each shell, the function that returns its script."""
