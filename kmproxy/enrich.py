"""The filter: copies an exposition from one stream to another, with labels from a file.

Knows the output of `kubectl get namespaces`, and gzip. Must not know clusters, HTTP or terminals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import yaml

from kmproxy.config.recipe import read_recipe
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.content_coding import GzipDecoder, GzipEncoder
from kmproxy.errors import ConfigError, StreamError, UpstreamError
from kmproxy.exposition.errors import ExpositionError
from kmproxy.exposition.lines import LineFilter
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Selection
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap

PIECE = 1 << 16

MAX_SHOWN = 10
"""Numbers of lines that are remembered, at most."""

_GZIP = b"\x1f\x8b"  # begins each gzip stream, and no text

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


class _UnparsedLines(LineFilter):
    """Finds the numbers of the first lines that are not understood. Its output means nothing.

    A line is not understood if a pipeline of this recipe counts it as unparsed. `looking`
    says whether the next piece ends such a line: other lines are only counted.
    """

    def __init__(self, lookup: Callable[[bytes], bytes], recipe: Recipe) -> None:
        super().__init__(recipe.max_line)
        self._reader = Pipeline(lookup, recipe)
        self._number = 0  # of lines that ended
        self.looking = False
        self.found: list[int] = []

    def _block(self, block: bytes) -> bytes:
        if self.looking and len(self.found) < MAX_SHOWN:
            for line in block.split(b"\n")[:-1]:
                self._look(line)
        else:
            self._number += block.count(b"\n")
        return b""

    def _line(self, line: bytes) -> bytes:
        self._look(line)
        return b""

    def _look(self, line: bytes) -> None:
        self._number += 1
        before = self._reader.enricher.unparsed
        self._reader.feed(line + b"\n")
        if self._reader.enricher.unparsed > before and len(self.found) < MAX_SHOWN:
            self.found.append(self._number)


class Filter:
    """Copies one exposition, with the labels of a label map added.

    If the input is gzip, the output is gzip too. `enricher` and `selector` hold the counts, as in
    a pipeline.
    """

    def __init__(self, config: LabelConfig, selection: SelectionConfig, labels: LabelMap) -> None:
        recipe = read_recipe(config, selection)
        self._pipeline = Pipeline(labels.lookup, recipe)
        self.enricher = self._pipeline.enricher
        self.selector = self._pipeline.selector
        alone = replace(recipe, selection=Selection(), info=False)
        self._numbers = _UnparsedLines(labels.lookup, alone)

    @property
    def unparsed_lines(self) -> list[int]:
        """The numbers of the first `MAX_SHOWN` lines that are not understood, from 1."""
        return self._numbers.found

    def copy(
        self,
        source: BinaryIO,
        sink: BinaryIO,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Copies the exposition. Calls `progress` with the size of each piece that was read.

        Raises StreamError if a stream fails, gzip is damaged or the exposition cannot be served,
        such as one with too many series. Raises BrokenPipeError unchanged.
        """
        try:
            data = source.read(PIECE)
            zipped = data.startswith(_GZIP)
            decoder = GzipDecoder("input", max_members=None) if zipped else None
            encoder = GzipEncoder() if zipped else None
            while data:
                for piece in (data,) if decoder is None else decoder.feed(data):
                    _write(sink, encoder, self._feed(piece))
                if progress is not None:
                    progress(len(data))
                data = source.read(PIECE)
            if decoder is not None:
                decoder.finish()
            _write(sink, encoder, self._finish())
            if encoder is not None:
                sink.write(encoder.finish())
            sink.flush()
        except BrokenPipeError:
            raise
        except ExpositionError as error:
            raise StreamError(error.details) from error
        except UpstreamError as error:
            raise StreamError(str(error)) from error
        except OSError as error:
            raise StreamError(f"the exposition could not be copied: {error.strerror}") from error

    def _feed(self, piece: bytes) -> bytes:
        before = self.enricher.unparsed
        passed = self._pipeline.feed(piece)
        self._numbers.looking = self.enricher.unparsed > before
        self._numbers.feed(piece)
        return passed

    def _finish(self) -> bytes:
        passed = self._pipeline.finish()
        self._numbers.finish()
        return passed


def _write(sink: BinaryIO, encoder: GzipEncoder | None, data: bytes) -> None:
    sink.write(data if encoder is None else encoder.feed(data))


def enrich(
    config: LabelConfig,
    selection: SelectionConfig,
    labels: LabelMap,
    source: BinaryIO,
    sink: BinaryIO,
    progress: Callable[[int], None] | None = None,
) -> Filter:
    """Copies an exposition with `Filter.copy`. Returns the filter with its counts."""
    copying = Filter(config, selection, labels)
    copying.copy(source, sink, progress)
    return copying
