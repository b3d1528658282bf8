"""The filter: an exposition from one stream to another, with labels from a file.

Knows what `kubectl get namespaces` prints. Must not know clusters or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import yaml

from kmproxy.config import LabelConfig
from kmproxy.errors import ConfigError
from kmproxy.exposition import Enricher
from kmproxy.labels import LabelMap, Namespace

PIECE = 1 << 16


class _Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Namespace(msgspec.Struct):
    metadata: _Meta
    kind: str = "Namespace"


def read_namespaces(path: str) -> list[Namespace]:
    """The namespaces in a file: a List or Namespace objects, as JSON or YAML.

    Raises ConfigError if it cannot be read as that.
    """
    try:
        text = Path(path).read_text("utf-8")
        documents = [json.loads(text)] if text[:1] == "{" else _yaml_documents(text)
        items = [item for document in documents for item in _items(document)]
        spaces = msgspec.convert(items, list[_Namespace])
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ConfigError([f"--namespaces {path}: {reason}"]) from error
    for space in spaces:
        if space.kind not in {"Namespace", "PartialObjectMetadata"}:
            raise ConfigError([f"--namespaces {path}: holds a {space.kind}, not only namespaces"])
    metas = [space.metadata for space in spaces]
    return [Namespace(meta.name, meta.labels or {}, meta.annotations or {}) for meta in metas]


def _yaml_documents(text: str) -> list[Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(text, Loader=loader))


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        yield from document["items"]
    elif document is not None:
        yield document


def enrich(
    config: LabelConfig, namespaces: list[Namespace], source: BinaryIO, sink: BinaryIO
) -> Enricher:
    """Copy an exposition with the labels put on; returns the enricher with its counts."""
    labels = LabelMap(config.rules)
    labels.replace(namespaces, now=0.0)
    enricher = Enricher(labels.lookup, on_conflict=config.on_conflict)
    while data := source.read(PIECE):
        sink.write(enricher.feed(data))
    sink.write(enricher.finish())
    sink.flush()
    return enricher
