"""A Lease (`coordination.k8s.io/v1`) that one of several processes holds, by client-go's rules.

Knows the fields of a Lease, who may take it, and what is written. Must not know requests. Times are
passed in: `now` is of a clock that only goes forward, `wall` is in seconds since 1970.

The times in a Lease come from its holder's clock and are never compared with our own. A process
that is not the holder notes when it saw the Lease change last, by its own clock. If a Lease has not
changed for its whole duration since then, its holder is gone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from kmproxy.errors import ApiError

JITTER: Final = 1.2
"""A look of another process follows after up to `retry` seconds times 1 + `JITTER`."""

LONGEST: Final = 3600
"""Seconds of the longest duration that a Lease can ask others to wait."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The times of an election, in seconds. The defaults are those of client-go.

    A Lease that does not change for `duration` may be taken by another process. A holder may act
    for `deadline` after the request of its last renewal: then it has given up, some seconds before
    another process may begin. `retry` lies between two renewals, and between two looks of other
    processes, `interval` at least between two writes of a holder.
    """

    duration: int = 15
    deadline: float = 10.0
    retry: float = 2.0
    interval: float = 1.0


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Meta(msgspec.Struct, rename="camel"):
    annotations: dict[str, str] | None = None


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


_LEASE = msgspec.json.Decoder(_Lease)
_ANY = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True, eq=False)
class Election:
    """One process's view of a Lease.

    `identity` is unique to the process. `annotation` is the name of the annotation that the holder
    writes.
    """

    name: str
    namespace: str
    identity: str
    annotation: str
    times: LeaseTimes = LeaseTimes()
    holder: str = field(init=False, default="")
    """The holder as last seen, empty without one."""
    text: str | None = field(init=False, default=None)
    """The annotation as last seen."""
    _document: dict[str, Any] | None = field(init=False, default=None)
    _spec: _Spec = field(init=False, default_factory=_Spec)
    _changed_at: float = field(init=False, default=0.0)

    @property
    def is_ours(self) -> bool:
        """Whether this process is the holder, as far as the Lease tells."""
        return self.holder == self.identity

    def observe(self, data: bytes | bytearray | None, now: float) -> None:
        """Take the Lease as the API server has it. None: there is none. Raises ApiError."""
        if data is None:
            self._document, self.holder, self.text = None, "", None
            self._spec = _Spec()
            return
        try:
            lease, document = _LEASE.decode(data), _ANY.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(200, "garbage", "the API server's answer is no Lease") from error
        if self._document is None or lease.spec != self._spec:
            self._changed_at = now
        self._document, self._spec = document, lease.spec
        self.holder = lease.spec.holder_identity or ""
        self.text = (lease.metadata.annotations or {}).get(self.annotation)

    def may_take(self, now: float) -> bool:
        """Tell whether this process may take the Lease."""
        if not self.holder or self.is_ours:
            return True
        seconds = self._spec.lease_duration_seconds or self.times.duration
        return now - self._changed_at >= min(max(seconds, 1), LONGEST)

    def written(self, wall: float, text: str | None, *, release: bool = False) -> dict[str, Any]:
        """Return the document that takes, renews or releases the Lease, with this annotation.

        It has the resource version that was observed, so it is refused if another process was
        faster.
        """
        document = copy.deepcopy(self._document) or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
        }
        stamp = f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        before = self._spec
        spec = document["spec"] = dict(document.get("spec") or {})
        transitions = max(before.lease_transitions or 0, 0)
        if release:
            # As client-go does: the next process need not wait.
            spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": stamp}
        else:
            taken = not self.is_ours
            spec |= {"holderIdentity": self.identity, "leaseDurationSeconds": self.times.duration}
            spec["acquireTime"] = stamp if taken else (before.acquire_time or stamp)
            transitions += taken and self._document is not None
        spec |= {"renewTime": stamp, "leaseTransitions": transitions}
        if text is not None:
            metadata = document["metadata"]
            metadata["annotations"] = {**(metadata.get("annotations") or {}), self.annotation: text}
        return document
