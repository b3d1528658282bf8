"""The page about container logs: its tables have every setting and every metric."""

import re

import yaml

from kmproxy.cli.read import read_logs
from kmproxy.config.loader import Layer, load_logs
from kmproxy.config.logs import LOGS_SECTIONS, NOT_OF_LOGS, LogsConfig
from tests.support.documents import PAGES, blocks, section
from tests.support.setting_rows import setting_rows

PAGE = "docs/logs.md"


def rows():
    """The table of the settings that only `logs` has, made from the settings."""
    return setting_rows([LogsConfig], NOT_OF_LOGS)


def test_the_table_of_settings():
    """Every setting of its own has its row, from the same field as its flag."""
    between = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", PAGES[PAGE], re.DOTALL)
    assert between[1] == "\n".join(rows())


def test_the_shared_settings():
    """The flags that `serve` has, too, are named."""
    part = section(PAGE, "Settings")
    shared = [kind for kind in LOGS_SECTIONS.values() if kind is not LogsConfig]
    for row in setting_rows(shared, NOT_OF_LOGS):
        flag = re.match(r"\| `(--[a-z-]+)", row)[1]
        assert f"`{flag}`" in part, flag


def test_the_command():
    """The documented command line is valid."""
    text = next(each.text for each in blocks(PAGE) if each.text.startswith("kmproxy logs"))
    command, warnings = read_logs(text.split()[2:])
    assert warnings == []
    assert command.logs.loki_url.endswith("/loki/api/v1/push")


def test_the_example():
    """The documented file is valid."""
    example = next(each.text for each in blocks(PAGE) if "tenants:" in each.text)
    command, warnings = load_logs([Layer(PAGE, "", yaml.safe_load(example))])
    assert warnings == []
    assert command.tenants == {"payments": "1", "frontend": "2"}


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - to be pasted into docs/logs.md
