"""The tenant filter on the compiled engine.

Knows how verdicts are asked for and lines read again. Must not know how a verdict is found. What
passes, and what is counted, is as TenantFilter defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import kmproxy_engine

from kmproxy.auth.tenant_filter import PASSES, TenantFilter
from kmproxy.exposition.compiled import NO_SAMPLES
from kmproxy.exposition.grammar import unescape
from kmproxy.exposition.namespace_labels import NamespaceLabels

_VERDICTS = {PASSES: 0, "namespace": 1, "tenant": 2}
_UNDECIDED = 3


class CompiledTenantFilter(TenantFilter):
    """A tenant filter that holds blocks of lines, and reads them in one pass.

    Blocks with a namespace that is not decided are read again when it is. If the engine misreads a
    line, the lines of this exposition are held one by one from then on, as TenantFilter does.
    """

    __slots__ = ("_asked", "_blocks", "_engine", "_misread", "_passed")

    def __init__(
        self,
        wanted: Callable[[str], bool],
        *,
        max_line: int,
        namespace_labels: NamespaceLabels | None = None,
    ) -> None:
        super().__init__(wanted, max_line=max_line, namespace_labels=namespace_labels)
        self._blocks: list[bytes] = []  # lines that are held
        self._asked: set[bytes] = set()  # the namespaces of these lines that are not decided
        self._passed: tuple[bytes, kmproxy_engine.Counts] | None = None
        self._misread = False
        self._engine = self._new_engine()

    def _new_engine(self) -> kmproxy_engine.Engine:
        return kmproxy_engine.Engine(
            naming=list(self._labels.names),
            prefixes=list(self._labels.prefixes),
            pods=False,
            overwrite=False,
            metrics=False,
            namespaces=False,
            drop=[],
            strip=False,
            tenant=True,
        )

    def ask_verdict(self, namespace: bytes) -> int:
        """Returns the verdict about a namespace, as the engine understands it."""
        name = unescape(namespace)
        verdict = self._verdicts.get(name)
        if verdict is not None:
            return _VERDICTS[verdict]
        if not self._can_exist(name):
            return _VERDICTS["tenant"]
        self._asked.add(name)
        return _UNDECIDED

    def decide(self, allowed: Mapping[str, bool]) -> None:
        """Record for each namespace whether the tenant may see it."""
        names = [name.encode() for name in allowed]
        before = [self._verdicts.get(name) for name in names]
        super().decide(allowed)
        after = [self._verdicts[name] for name in names]
        if after:
            self._passed = None
        if any(old not in {None, new} for old, new in zip(before, after, strict=True)):
            self._engine = self._new_engine()  # it remembers verdicts

    def take(self) -> bytes:
        """Returns the held lines that pass. Raises KeyError if a namespace is not decided."""
        if self._misread:
            return super().take()
        if self._passed is None:
            self._read()
        if self._asked or self._passed is None:
            raise KeyError(*self._asked)
        passed, counts = self._passed
        self._blocks.clear()
        self._passed = None
        self.dropped["unparsed"] += counts[2]
        self.dropped["namespace"] += counts[6]
        self.dropped["tenant"] += counts[8]
        return passed if self._lines.ended else passed[:-1]

    def _undecided(self) -> set[str]:
        if self._misread:
            return super()._undecided()
        blocks, too_long = self._lines.take()
        self.dropped["unparsed"] += too_long
        self._blocks += blocks
        if self._forget_many():
            self._engine = self._new_engine()
        self._read()
        if self._passed is None:
            self._misread = True
            for block in self._blocks:
                self._hold(block)
            self._blocks.clear()
            return super()._undecided()
        return {name.decode("ascii") for name in self._asked}

    def _read(self) -> None:
        """Reads the held lines. What passes is None if a line was misread."""
        self._asked.clear()
        block = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        passed, odd, counts = self._engine.read(b"", block, 0, len(block), 0, self)
        misread = odd and NO_SAMPLES.fullmatch(odd) is None
        self._passed = None if misread else (passed, counts)
