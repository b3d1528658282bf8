"""A push to Loki: its body, and the meaning of an answer.

Knows the JSON of a push, and which status is about a line, the endpoint or the moment. Must not
know connections, containers or the content of a line.

Loki answers 400 also when it has stored the good lines of a push, and 429 when it has stored a
part. So lines that are sent again after such an answer may be stored twice. Loki keeps a line only
once if its stream, nanosecond and text are the same as those of the line before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec

PATHS: Final = "Loki: /loki/api/v1/push, VictoriaLogs: /insert/loki/api/v1/push"

REASONS: Final = ("rejected", "too_long", "too_new", "too_old", "labels")
"""Why an endpoint refuses a line: the values of the metric's label that come from here."""

ANSWER_BYTES: Final = 4096
"""Bytes of an answer's body that are read."""

_WORDS: Final = (
    ("too_old", re.compile(rb"too far behind|too old|out of order", re.IGNORECASE)),
    ("too_new", re.compile(rb"too new", re.IGNORECASE)),
    ("too_long", re.compile(rb"max entry size|too long: max|line too long|exceeds the maximum "
                            rb"(?:size|length)", re.IGNORECASE)),
    ("labels", re.compile(rb"label name|label value|duplicate label|structured metadata|"
                          rb"error parsing labels|at least one label pair", re.IGNORECASE)),
)  # fmt: skip
"""The words by which Loki's validation refuses a line, and the reason that each means."""

_NOT_A_LINE: Final = frozenset({401, 403, 404, 405, 406, 407, 411, 414, 415, 421, 426, 431})
"""Statuses of a wrong URL, a wrong way or a wrong credential. No line is at fault."""

_LATER: Final = frozenset({408, 425, 429})


class Entry(msgspec.Struct, frozen=True):
    """A line as it is pushed.

    `labels` and `value` are JSON. `size` is the number of bytes of the line. `owner` is an object
    of the code that made the entry.
    """

    labels: bytes
    value: bytes
    size: int
    time: int
    owner: object


Entries = Sequence[Entry]


def entry_value(time: int, text: bytes, metadata: bytes) -> tuple[bytes, bool]:
    """Returns the JSON of a line's entry, and whether bytes that are not UTF-8 were replaced."""
    replaced = False
    try:
        shown = text.decode()
    except UnicodeDecodeError:
        shown, replaced = text.decode(errors="replace"), True
    line = msgspec.json.encode(shown)
    if metadata:
        return b'["%d",%b,%b]' % (time, line, metadata), replaced
    return b'["%d",%b]' % (time, line), replaced


STREAM_BYTES: Final = len('{"stream":,"values":[]},')
BODY_BYTES: Final = len('{"streams":[]}')


def body(entries: Entries) -> bytes:
    """Returns the JSON of a push. The lines of a stream are in the order of the entries."""
    streams: dict[bytes, list[bytes]] = {}
    for entry in entries:
        streams.setdefault(entry.labels, []).append(entry.value)
    return b'{"streams":[%b]}' % b",".join(
        b'{"stream":%b,"values":[%b]}' % (labels, b",".join(values))
        for labels, values in streams.items()
    )


class Verdict(Enum):
    """The meaning of an answer."""

    TAKEN = "taken"
    LATER = "later"
    """The endpoint is overloaded or fails. The same push is tried again."""
    ENDPOINT = "endpoint"
    """The URL or the credential is wrong. The same push is tried again."""
    LINES = "lines"
    """A line is at fault, or there are too many of them."""


def judge(status: int) -> Verdict:
    """Returns the meaning of a status.

    Only 204 means that the lines were taken: a page of a wrong URL is often a 200.
    """
    if status == 204:
        return Verdict.TAKEN
    if status >= 500 or status in _LATER:
        return Verdict.LATER
    if 400 <= status < 500 and status not in _NOT_A_LINE:
        return Verdict.LINES
    return Verdict.ENDPOINT


def reason_of(status: int, text: bytes) -> str:
    """Returns one of `REASONS` for a line that was refused alone."""
    if status == 413:
        return "too_long"
    for reason, words in _WORDS:
        if words.search(text[:ANSWER_BYTES]):
            return reason
    return "rejected"


def advice(status: int) -> str:
    """Returns what to do about a status, for a log line. It holds no text of the endpoint."""
    match status:
        case 401:
            return "its credential or its tenant is not accepted, see the loki section"
        case 403:
            return "its credential has no right to push, see the loki section"
        case 404 | 405:
            return f"is the path of --loki-url right? Usual ones: {PATHS}"
        case 429:
            return "it takes no more at the moment, see the limits of the tenant"
        case _ if status >= 500 or status in _LATER:
            return "see its log"
        case _ if 300 <= status < 400:
            return "a redirect is not followed: write the URL that it leads to"
        case _ if 200 <= status < 300:
            return f"a push is answered with 204: is --loki-url right? Usual paths: {PATHS}"
        case _:
            return "is --loki-url a push endpoint?"


@dataclass(slots=True)
class Endpoint:
    """What is known of the endpoint: whether it has shown that it reads pushes.

    It has, once it took one, or refused a line in the words of Loki. Before that, an endpoint that
    refuses everything is no reason to leave a line out: its URL may be wrong.
    """

    proven: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer settles.

    `taken` and `lost` are the entries that are done with, `lost` with the reason of each. Both
    together begin at the first entry that was not done with before. `repeated` is the number of
    entries that will be sent again although the endpoint may have stored them. `wait`: the next
    push waits for a delay, because of the endpoint and not of a line.
    """

    taken: Entries = ()
    lost: Sequence[tuple[Entry, str]] = ()
    repeated: int = 0
    wait: bool = False


@dataclass(slots=True)
class Delivery:
    """The pushes by which the entries of one batch are taken, or are left out one by one.

    Entries are done with in their order. There are at most two pushes for each entry, besides those
    that are tried again.
    """

    entries: Entries
    endpoint: Endpoint
    _parts: list[Entries] = field(init=False)
    _aside: list[tuple[Entry, str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._parts = [self.entries] if self.entries else []

    def __repr__(self) -> str:
        return f"<Delivery {sum(map(len, self._parts))} of {len(self.entries)} entries left>"

    def part(self) -> Entries | None:
        """The entries of the next push, or None if all are done with."""
        return self._parts[-1] if self._parts else None

    def answered(self, status: int, text: bytes = b"") -> Outcome:
        """Takes the answer to the push of `part`."""
        part = self._parts[-1]
        match judge(status):
            case Verdict.TAKEN:
                self._parts.pop()
                self.endpoint.proven = True
                return Outcome(part, self._settled())
            case Verdict.LATER:
                return Outcome(repeated=len(part), wait=True)
            case Verdict.ENDPOINT:
                return Outcome(wait=True)
        reason = reason_of(status, text)
        if reason != "rejected" and (status != 413 or len(part) == 1):
            self.endpoint.proven = True
        self._parts.pop()
        if len(part) > 1:
            middle = len(part) // 2
            self._parts += [part[middle:], part[:middle]]
            return Outcome(lost=self._settled(), repeated=0 if status == 413 else len(part))
        self._aside.append((part[0], reason))
        lost = self._settled()
        if not lost and not self._parts:
            # Nothing was taken yet, and no refusal was one of Loki's: the endpoint is in doubt.
            self._parts = [[entry for entry, _ in self._aside]]
            self._aside.clear()
            return Outcome(repeated=len(self._parts[0]), wait=True)
        return Outcome(lost=lost)

    def failed(self, *, stored: bool) -> Outcome:
        """The push of `part` got no answer. `stored`: the endpoint may have taken the push."""
        return Outcome(repeated=len(self._parts[-1]) if stored else 0, wait=True)

    def _settled(self) -> list[tuple[Entry, str]]:
        """The entries set aside, which are left out as soon as the endpoint is proven."""
        if not self.endpoint.proven:
            return []
        lost, self._aside = self._aside, []
        return lost
