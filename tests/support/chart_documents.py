"""Writes the table of the chart's README and parts of its schema, for `make chart-documents`.

Both follow from values.yaml, whose comments with two dashes describe values, and from the settings
of kmproxy, which are the keys of the value `config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from kmproxy.config.http_client import KEYS
from kmproxy.config.logs import LOGS_SECTIONS, LOKI_KEY, NOT_OF_LOGS, TENANTS_KEY
from kmproxy.config.sections import ACCESS_KEY, SECTIONS, UPSTREAMS_KEY
from kmproxy.config.settings import settings
from kmproxy.config.upstreams import OWN_KEYS
from tests.support.charts import CHART

README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"

SECRETS = ("bearer_token", "credentials", "password", "client_secret", "key", "key_pem")
"""Keys that the chart refuses, as their values would stand in a ConfigMap. Each has a file's key."""

_LINE = re.compile(r"(?P<indent> *)(?:# (?P<comment>.*)|(?P<key>[\w]+):(?P<rest>.*))")


class Value(NamedTuple):
    """A described value: its path, its default and its meaning."""

    path: tuple[str, ...]
    default: Any
    meaning: str


def values() -> list[Value]:
    """The described values of values.yaml, in its order."""
    text = (CHART / "values.yaml").read_text("utf-8")
    document = yaml.safe_load(text)
    found, comment, path = [], [], []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            comment = []
        elif match["comment"] is not None:
            comment.append(match["comment"])
        else:
            path = [*path[: len(match["indent"]) // 2], match["key"]]
            if comment and comment[0].startswith("-- "):
                meaning = " ".join(comment).removeprefix("-- ")
                found.append(Value(tuple(path), _at(document, path), meaning))
            comment = []
    return found


def _at(document: Any, path: list[str]) -> Any:
    for key in path:
        document = document[key]
    return document


def table() -> str:
    """The rows of the README's table."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for each in values():
        default = "" if each.default is None else f"`{json.dumps(each.default)}`"
        meaning = each.meaning.replace("|", "\\|")
        rows.append(f"| `{'.'.join(each.path)}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def readme() -> str:
    """The README with its table."""
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def config_keys() -> dict[str, Any]:
    """The schema of each key of the YAML file of `kmproxy serve --config`."""
    keys = _keys(SECTIONS)
    keys[ACCESS_KEY] = _block("") | {
        "description": "How kubelets are asked, in place of the service account.",
    }
    keys[UPSTREAMS_KEY] = upstreams() | {"description": "Other exporters to enrich."}
    return keys


def logs_config_keys() -> dict[str, Any]:
    """The schema of each key of the YAML file of `kmproxy logs --config`."""
    keys = _keys(LOGS_SECTIONS, NOT_OF_LOGS)
    keys[ACCESS_KEY] = _block("") | {
        "description": "How kubelets are asked, in place of the service account.",
    }
    keys[LOKI_KEY] = _block("") | {"description": "How the push endpoint is asked."}
    keys[TENANTS_KEY] = {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "The tenant for each value of --tenant-label.",
    }
    return keys


def _keys(
    sections: Mapping[str, type[Any]], left_out: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The schema of each setting in these sections."""
    scalar = ["string", "number", "boolean"]
    keys: dict[str, Any] = {}
    for section in sections.values():
        for spec in settings(section).values():
            if spec.name in left_out:
                continue
            one: dict[str, Any] = {"type": scalar}
            if spec.boolean:
                one = {"enum": [True, False, "true", "false"]}
            elif spec.repeatable:
                one = {"type": [*scalar, "array"], "items": {"type": scalar}}
            elif re.fullmatch(r"[a-z]+(\|[a-z]+)+", spec.metavar):
                one = {"enum": spec.metavar.split("|")}
            keys[spec.name] = one | {"description": spec.help}
            keys |= {alias: {"type": scalar} for alias in spec.aliases}
    return keys


def upstreams() -> dict[str, Any]:
    """The schema of the key `upstreams`."""
    item = _block("")
    item["properties"] = {key: {} for key in OWN_KEYS} | item["properties"]
    item["required"] = ["name", "url"]
    return {"type": "array", "items": item}


def _block(name: str) -> dict[str, Any]:
    """The schema of a block of an HTTP client's keys. A key that holds a secret is none of them."""
    known = [key for key in KEYS[name] if key not in SECRETS]
    properties = {key: _block(key) if key in KEYS else {} for key in known}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema() -> str:
    """The schema with its descriptions, and with the keys of `config`."""
    document = json.loads(SCHEMA.read_text("utf-8"))
    document["properties"]["config"]["properties"] = config_keys()
    for name in ("logs", "events"):
        document["properties"][name]["properties"]["config"]["properties"] = logs_config_keys()
    document["properties"]["upstreams"] = upstreams()
    for each in values():
        part = document
        for key in each.path:
            part = part["properties"][key]
        part["description"] = each.meaning
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    README.write_text(readme(), "utf-8")
    SCHEMA.write_text(schema(), "utf-8")
