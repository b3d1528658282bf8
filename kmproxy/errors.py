"""What can go wrong, as one tree.

    KmproxyError
    ├── ConfigError            the command line, the YAML file or a file they name is wrong
    ├── CredentialError        a token, CA or kubeconfig cannot be used
    ├── SnapshotError          the label snapshot cannot be read or written
    ├── OwnFileError           a file of kmproxy's own may have been written by others
    ├── PinError               the pins of kubelets' certificates cannot be read
    ├── StartupError           the daemon cannot begin: a port in use, no namespaces in time
    ├── StreamError            standard input or output failed
    ├── AccessError            a caller is not known, may not, or nobody can tell
    ├── SlowClientError        a client does not take its answer
    └── UpstreamError          the kubelet or the API server refused, failed or fell silent
        ├── ApiError           the API server answered with an error status
        └── ForbiddenError     a kubelet refused, and told which permission it wants

A message is one plain line for a person: what failed and what to do. It never
carries a credential or an upstream's body, but for ApiError's, which is what the
API server said and so must not be shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What ends a line, moves a terminal's cursor, turns the direction of text or is no text."""


def one_line(text: str) -> str:
    """The text with every one of these characters spelled out, a newline as backslash and n.

    A peer's words can then neither end a line of the log nor begin another.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


class KmproxyError(Exception):
    """The root: whatever kmproxy raises on purpose."""


class ConfigError(KmproxyError):
    """Everything that is wrong with the configuration, not just the first.

    `problems` holds one line each and is never empty.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CredentialError(KmproxyError):
    """A token, a CA or a kubeconfig is missing, unreadable or invalid.

    `credential` says what it is of: a short word, the value of a metric label.
    """

    def __init__(self, message: str, *, credential: str = "token") -> None:
        self.credential = credential
        super().__init__(message)


class SnapshotError(KmproxyError):
    """A label snapshot is damaged, not ours, too old, or cannot be written."""


class OwnFileError(KmproxyError):
    """A file that kmproxy keeps is not a regular one of its own user alone, or too long."""


class PinError(KmproxyError):
    """What is kept of kubelets' certificates is not that."""


class StartupError(KmproxyError):
    """The daemon could not begin its work."""


class StreamError(KmproxyError):
    """Standard input could not be read, or standard output not be written."""


class AccessError(KmproxyError):
    """A caller is not let in.

    `reason` is a short word from a bounded set. `status` is the HTTP status
    that the caller deserves: 401, 403, or 500 where it could not be found out.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(one_line(message))


class SlowClientError(KmproxyError):
    """A client has kept its answer waiting for too long: its connection is to be reset."""

    status = 504


class UpstreamError(KmproxyError):
    """A kubelet or the API server did not give what was asked of it.

    `reason` is a short word, the value of a metric label and so from a bounded
    set. `status` is the HTTP status that a scraper deserves to see for it.
    """

    def __init__(self, reason: str, message: str, *, status: int = 502) -> None:
        self.reason = reason
        self.status = status
        super().__init__(one_line(message))


class ApiError(UpstreamError):
    """The API server answered, and the answer was an error.

    `code` is the HTTP status or the code of a `Status` object, 200 where the
    answer itself is the fault and the message our own. `retry_after` is the
    seconds it asked for, if any.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        status: int = 502,
    ) -> None:
        self.code = code
        self.retry_after = retry_after
        super().__init__(reason, message, status=status)

    @property
    def summary(self) -> str:
        """What may be shown: it is without the API server's own words."""
        if self.code == 200:
            return str(self)
        if self.code == 401:
            return "the API server does not accept our credentials (401)"
        return f"the API server answered {self.code} {self.reason}"


class ForbiddenError(UpstreamError):
    """A kubelet refused to be asked; `resource` is what a role has to grant to `get`."""

    def __init__(self, resource: str, message: str) -> None:
        self.resource = resource
        super().__init__("forbidden", message)
