"""Selects the lines of an exposition that a tenant sees: samples of allowed namespaces.

Knows the namespace of a line. Must not know the tenant, nor how namespaces are decided. A line
that is not understood does not pass, as it could belong to any namespace. A sample without a
namespace does not pass either, nor a line above the maximum length. HELP, TYPE and UNIT lines pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice

from kmproxy.bounded_cache import ENTRY, BoundedCache
from kmproxy.exposition.finder import sample_finder, split_at, split_at_pairs
from kmproxy.exposition.grammar import METADATA, Sample, by_lines, unescape
from kmproxy.exposition.lines import WholeLines
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.kube.reviews import is_namespace

# Runs of lines that every caller may see. Each match begins where the one before ended.
_SHARED = re.compile(
    rb"((?:\n++|(?:%b|\#[ ]EOF|[ \t]*+)\n)++)|[^\n]*+\n(?:[^\#\n \t][^\n]*+\n)*+" % METADATA
)
MAX_NAMESPACES = 1 << 14
"""Namespaces whose verdicts may be held, of at most 63 bytes each, for any exposition."""

MAX_RECENT = 8 << 20
"""Bytes of the namespaces in the last responses of all paths."""

PASSES = ""

_Owner = bytes | tuple[bytes, ...] | None
"""The namespace of a line, or all of them; None for lines that are open to everyone."""


class TenantFilter:
    """Takes an exposition in pieces of any size, and holds each until it is decided.

    `feed` and `finish` return namespaces, and the user must pass a decision about each of them to
    `decide`. Then `take` returns the lines that pass. It raises KeyError if a namespace is not
    decided. Every namespace must be decided, wanted or not: `wanted` leaves out only samples of
    namespaces that the tenant sees, so nothing depends on a question about the others.

    The joined output does not depend on how the input is cut into pieces. Between calls at most
    one unfinished line is held, of up to `max_line` bytes and one piece. `dropped` counts the
    lines that were left out, by reason: `namespace` for samples of namespaces that are not wanted,
    `tenant` for samples without a namespace or of another tenant, `unparsed` for lines that are
    not understood. Each byte is read a bounded number of times, also if the pieces are small.

    A sample that names several namespaces by `namespace_labels` passes only if all of them are
    wanted and seen. If the tenant does not see one of them, it counts as `tenant`, whatever is
    wanted.
    """

    __slots__ = (
        "_finder",
        "_held",
        "_labels",
        "_lines",
        "_owners",
        "_several",
        "_verdicts",
        "_wanted",
        "dropped",
    )

    def __init__(
        self,
        wanted: Callable[[str], bool],
        *,
        max_line: int,
        namespace_labels: NamespaceLabels | None = None,
    ) -> None:
        self._wanted = wanted
        self._labels = namespace_labels or NamespaceLabels()
        self._finder = sample_finder(frozenset(self._labels.names))
        self._lines = WholeLines(max_line)
        self._verdicts = _first_verdicts()
        self._held: list[bytes] = []  # lines, each with its newline at the front
        self._owners: list[_Owner] = []  # of each line
        self._several: set[tuple[bytes, ...]] = set()  # owners of held lines, without a verdict
        self.dropped = {"namespace": 0, "tenant": 0, "unparsed": 0}

    def __repr__(self) -> str:
        return f"<TenantFilter {len(self._verdicts) - 2} namespaces, dropped {self.dropped}>"

    def feed(self, data: bytes) -> set[str]:
        """Take the next piece. Returns the namespaces to decide before `take`."""
        self._lines.feed(data)
        return self._undecided()

    def finish(self) -> set[str]:
        """End the input. Returns the namespaces to decide for the rest."""
        self._lines.finish()
        return self._undecided()

    def decide(self, allowed: Mapping[str, bool]) -> None:
        """Record for each namespace whether the tenant may see it."""
        for namespace, sees in allowed.items():
            if sees is not True:
                verdict = "tenant"
            else:
                verdict = PASSES if self._wanted(namespace) else "namespace"
            self._verdicts[namespace.encode()] = verdict

    def take(self) -> bytes:
        """Returns the held lines that pass. Raises KeyError if a namespace is not decided."""
        for owner in self._several:
            self._verdicts[owner] = self._verdict(owner)
        verdicts = [self._verdicts[owner] for owner in self._owners]
        for owner in self._several:  # only the verdicts of namespaces are kept
            del self._verdicts[owner]
        self._several.clear()
        for verdict in self.dropped:
            self.dropped[verdict] += verdicts.count(verdict)
        passing = [line for line, verdict in zip(self._held, verdicts, strict=True) if not verdict]
        self._held.clear()
        self._owners.clear()
        return b"".join([*passing, b"\n" * self._lines.ended])[1:] if passing else b""

    def _verdict(self, owners: tuple[bytes, ...]) -> str:
        """The verdict for a sample of several namespaces: the strictest one of theirs."""
        verdicts = {self._verdicts[owner] for owner in owners}
        return next((verdict for verdict in ("tenant", "namespace") if verdict in verdicts), PASSES)

    def _undecided(self) -> set[str]:
        """Hold the new lines. Returns the undecided namespaces of all held lines."""
        blocks, too_long = self._lines.take()
        self.dropped["unparsed"] += too_long
        for block in blocks:
            self._hold(block)
        self._forget_many()
        owners = set(self._owners).difference(self._verdicts)
        self._several = {owner for owner in owners if isinstance(owner, tuple)}
        single = {owner for owner in owners if isinstance(owner, bytes)}
        undecided = single.union(*self._several).difference(self._verdicts)
        return {namespace.decode("ascii") for namespace in undecided}

    def _forget_many(self) -> bool:
        """Forgets all verdicts if they are too many. Returns whether they were."""
        if many := len(self._verdicts) > MAX_NAMESPACES:
            self._verdicts = _first_verdicts()
        return many

    def _hold(self, block: bytes) -> None:
        """Hold the lines of a block. Each line is complete and ends with a newline."""
        parts = self._finder.plain_line.split(by_lines(block))
        verdicts = self._verdicts
        # No line follows the text that is left at the end.
        for between, line, namespace in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
            if between:
                self._hold_odd(between + b"\n")
            if namespace in verdicts or self._may_be(namespace):
                self._hold_line(namespace, line)
        self._hold_odd(parts[-1])

    def _hold_line(self, owner: _Owner, line: bytes) -> None:
        self._held.append(line)
        self._owners.append(owner)

    def _hold_odd(self, text: bytes) -> None:
        """Hold lines of any spelling. A newline leads each, and one ends the last."""
        borne = any(name in text for name in self._labels.names)
        parts = split_at(self._finder.any_spelling, text) if borne else [text]
        for at in range(0, len(parts) - 1, 4):
            between, head, value, rest = parts[at : at + 4]
            if between:
                self._hold_several(between + b"\n")
            namespace = unescape(value)
            if namespace in self._verdicts or self._may_be(namespace):
                self._hold_line(namespace, b'%b%b"%b' % (head, value, rest))
        if len(parts[-1]) > 1:
            self._hold_several(parts[-1])

    def _hold_several(self, text: bytes) -> None:
        """Hold lines that do not bear exactly one namespace label. A newline leads each."""
        if len(self._labels.names) == 1:
            self._hold_shared(text[1:])
            return
        parts = split_at_pairs(text)
        for at in range(0, len(parts) - 1, 4):
            if parts[at]:
                self._hold_shared(parts[at][1:] + b"\n")
            line = b"".join(parts[at + 1 : at + 4])
            if sample := Sample.parse(line[1:]):
                self._hold_sample(sample, line)
        if len(parts[-1]) > 1:
            self._hold_shared(parts[-1][1:])

    def _hold_sample(self, sample: Sample, line: bytes) -> None:
        """Hold a sample of any number of namespace labels, unless it names no namespace."""
        named = self._labels.named(sample.labels())
        if named is None:
            self.dropped["unparsed"] += 1
            return
        owners = tuple(map(unescape, named))
        if owners and all(map(self._can_exist, owners)):
            self._hold_line(owners, line)
        else:
            self.dropped["tenant"] += 1

    @staticmethod
    def _can_exist(namespace: bytes) -> bool:
        """Whether a namespace can have this name."""
        return is_namespace(namespace.decode("ascii", "replace"))

    def _may_be(self, namespace: bytes) -> bool:
        """Whether a namespace can have this name. If not, counts one sample as dropped."""
        if self._can_exist(namespace):
            return True
        self.dropped["tenant"] += 1
        return False

    def _hold_shared(self, text: bytes) -> None:
        """Take complete lines without a namespace, and hold those that every caller may see."""
        if self._finder.passing.fullmatch(text):  # plain samples and comments
            comments = text.count(b"\n#") + text.startswith(b"#")
            samples, unparsed = text.count(b"\n") - comments, 0
        else:
            comments = 1
            samples, unparsed = self._finder.count_kinds(text)
        self.dropped["tenant"] += samples
        self.dropped["unparsed"] += unparsed
        if comments and (shared := b"".join(_SHARED.findall(text))):
            self._hold_line(None, by_lines(shared)[:-1])


class Recent:
    """The namespaces in the last response of each path. Paths and namespaces are bounded."""

    def __init__(self, *, paths: int = 16, names: int = 4096) -> None:
        self._names = names
        self._held: BoundedCache[str, frozenset[str]] = BoundedCache(
            paths, size=MAX_RECENT, weigh=_weight
        )

    def __repr__(self) -> str:
        return f"<Recent {len(self._held)} paths>"

    def of(self, path: str) -> frozenset[str]:
        """The namespaces of a path."""
        return self._held.get(path) or frozenset()

    def of_all(self) -> list[str]:
        """The namespaces of all paths, each once. The path that was used last comes first."""
        return list(dict.fromkeys(chain.from_iterable(reversed(self._held.values()))))

    def note(self, path: str, namespaces: Iterable[str]) -> None:
        """Remember the namespaces in the last response of a path."""
        self._held.put(path, frozenset(islice(namespaces, self._names)))


def _weight(path: str, namespaces: frozenset[str]) -> int:
    """The bytes of a path and its namespaces, each with its place in the set."""
    return ENTRY + len(path) + sum(map(len, namespaces)) + 120 * len(namespaces)


def _first_verdicts() -> dict[_Owner, str]:
    return {None: PASSES, b"": "tenant"}
