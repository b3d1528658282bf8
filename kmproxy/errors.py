"""The errors of kmproxy, as one tree.

    KmproxyError
    ├── ConfigError            the command line, the YAML file or a file they name is wrong
    ├── CredentialError        a token, CA or kubeconfig cannot be used
    ├── SnapshotError          the label snapshot cannot be read or written
    ├── OwnFileError           a file of kmproxy's own may have been written by others
    ├── PinError               the pins of kubelets' certificates cannot be read
    ├── PositionsError         the positions of the logs' readers cannot be read or written
    ├── StartupError           the daemon cannot start: a port in use, no namespaces in time
    ├── StreamError            standard input or output failed
    ├── AccessError            a caller is unknown or not authorized, or nobody can decide that
    ├── SlowClientError        a client does not read its response
    └── UpstreamError          the kubelet or the API server refused, failed or went silent
        ├── ApiError           the API server answered with an error status
        └── ForbiddenError     a kubelet refused, and named the permission that is missing

A message is one plain line for a person: it says what failed and what to do. It
never contains a credential or an upstream's body. The message of an ApiError is an
exception: it may be the API server's own text, so it must not be shown unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that end a line, move a terminal's cursor, change text direction or are no text."""


def one_line(text: str) -> str:
    """Returns the text with each of these characters spelled out: a newline as backslash and n.

    So a peer's text can neither end a line of the log nor begin another.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


class KmproxyError(Exception):
    """The base class of every error that kmproxy raises on purpose."""


class ConfigError(KmproxyError):
    """All problems of the configuration, not only the first one.

    `problems` holds one line for each problem and is never empty.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CredentialError(KmproxyError):
    """A token, a CA or a kubeconfig is missing, unreadable or invalid.

    `credential` is the kind of credential: a short word, the value of a metric label.
    """

    def __init__(self, message: str, *, credential: str = "token") -> None:
        self.credential = credential
        super().__init__(message)


class SnapshotError(KmproxyError):
    """A label snapshot is damaged, of another cluster or other rules, too old, or not writable."""


class OwnFileError(KmproxyError):
    """A file that kmproxy keeps is too long, or is not a regular file of its own user alone."""


class PinError(KmproxyError):
    """The file of kubelets' pins does not hold valid pins."""


class PositionsError(KmproxyError):
    """The positions file cannot be read or written, or does not hold valid positions.

    The message is the reason, without the file's name.
    """


class StartupError(KmproxyError):
    """The daemon could not start."""


class StreamError(KmproxyError):
    """Standard input could not be read, or standard output not be written."""


class AccessError(KmproxyError):
    """A caller's request is refused.

    `reason` is a short word from a bounded set. `status` is the HTTP status for the
    caller: 401, 403, or 500 where the decision could not be made.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(one_line(message))


class SlowClientError(KmproxyError):
    """A client has not read its response for too long. Its connection must be reset."""

    status = 504


class UpstreamError(KmproxyError):
    """A kubelet or the API server did not give the answer that kmproxy asked for.

    `reason` is a short word, the value of a metric label and so from a bounded
    set. `status` is the HTTP status that the scraper gets for this failure.
    """

    def __init__(self, reason: str, message: str, *, status: int = 502) -> None:
        self.reason = reason
        self.status = status
        super().__init__(one_line(message))


class ApiError(UpstreamError):
    """The API server answered with an error.

    `code` is the HTTP status or the code of a `Status` object. It is 200 if the fault
    is in the answer itself; then the message is kmproxy's own. `retry_after` is the
    time in seconds that the API server asked for, if any.
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
        """A message that may be shown: it contains no text of the API server."""
        if self.code == 200:
            return str(self)
        if self.code == 401:
            return "the API server does not accept kmproxy's credentials (401)"
        return f"the API server answered {self.code} {self.reason}"


class ForbiddenError(UpstreamError):
    """A kubelet refused a request. A role has to grant `get` on `resource`."""

    def __init__(self, resource: str, message: str) -> None:
        self.resource = resource
        super().__init__("forbidden", message)
