"""The filter: copies an exposition from one stream to another, with labels from a file.

Knows the output of `kubectl get namespaces`. Must not know clusters or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import yaml

from kmproxy.config.recipe import read_recipe
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.errors import ConfigError, StreamError
from kmproxy.exposition.pipeline import Pipeline
from kmproxy.exposition.selector import SeriesError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap

PIECE = 1 << 16

_LISTS = {"List", "NamespaceList", "PartialObjectMetadataList"}


class _Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Namespace(msgspec.Struct):
    metadata: _Meta
    kind: str = "Namespace"


def read_namespaces(path: str) -> list[ObjectMeta]:
    """Reads the namespaces in a file: a List or Namespace objects, as JSON or YAML.

    Raises ConfigError if the file does not hold these.
    """
    try:
        text = Path(path).read_text("utf-8")
        documents = [json.loads(text)] if text[:1] == "{" else _yaml_documents(text)
        items = [item for document in documents for item in _items(document)]
        spaces = msgspec.convert(items, list[_Namespace])
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ConfigError([f"--namespaces {path}: {reason}"]) from error
    if not any(documents):
        raise ConfigError([f"--namespaces {path}: the file is empty"])
    for space in spaces:
        if space.kind not in {"Namespace", "PartialObjectMetadata"}:
            problem = f"the file holds a {space.kind}, not only namespaces"
            raise ConfigError([f"--namespaces {path}: {problem}"])
    metas = [space.metadata for space in spaces]
    return [ObjectMeta(meta.name, meta.labels or {}, meta.annotations or {}) for meta in metas]


def _yaml_documents(text: str) -> list[Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(text, Loader=loader))


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        if (kind := document.get("kind", "List")) not in _LISTS:
            raise ValueError(f"the file holds a {kind}, which is not a list of namespaces")
        yield from document["items"]
    elif document is not None:
        yield document


def labels_of(namespaces: list[ObjectMeta], config: LabelConfig) -> LabelMap:
    """Returns the label map for these namespaces."""
    labels = LabelMap(config.rules, max_value=config.max_label_value_bytes)
    labels.replace(namespaces, now=0.0)
    return labels


def enrich(
    config: LabelConfig,
    selection: SelectionConfig,
    labels: LabelMap,
    source: BinaryIO,
    sink: BinaryIO,
) -> Pipeline:
    """Copies an exposition, with the labels of a label map added.

    Returns the pipeline with its counts. Raises StreamError if a stream fails or the exposition has
    too many series. Raises BrokenPipeError unchanged.
    """
    pipeline = Pipeline(labels.lookup, read_recipe(config, selection))
    try:
        while data := source.read(PIECE):
            sink.write(pipeline.feed(data))
        sink.write(pipeline.finish())
        sink.flush()
    except BrokenPipeError:
        raise
    except SeriesError as error:
        raise StreamError(str(error)) from error
    except OSError as error:
        raise StreamError(f"the exposition could not be copied: {error.strerror}") from error
    return pipeline
