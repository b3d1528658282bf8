"""The Status objects of requests that fail.

Knows reasons, codes and texts of a real API server. Must not know requests.
"""

from __future__ import annotations

from kmproxy.simulator.objects import Object

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class StatusError(Exception):
    """A response that is a Status object. `headers` belong to it."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: Object | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        details = dict(details or {})
        if retry_after is not None:
            details["retryAfterSeconds"] = retry_after
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
        self.status |= {"status": "Failure", "message": message}
        self.status |= {"reason": reason or _REASONS.get(code, "Unknown")}
        self.status |= ({"details": details} if details else {}) | {"code": code}


def not_found(resource: str, name: str) -> StatusError:
    """Return the error for an object that does not exist."""
    details = {"name": name, "kind": resource}
    return StatusError(404, f'{resource} "{name}" not found', details=details)


def already_exists(resource: str, name: str) -> StatusError:
    """Return the error for the creation of an object that already exists."""
    details = {"name": name, "kind": resource}
    return StatusError(409, f'{resource} "{name}" already exists', details=details)


def conflict(resource: str, name: str) -> StatusError:
    """Return the error for an object that has changed since it was read."""
    message = (
        f'Operation cannot be fulfilled on {resource} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    details = {"name": name, "kind": resource}
    return StatusError(409, message, reason="Conflict", details=details)
