"""Outages of the API server: which failures begin one, and how long it lasts."""

from __future__ import annotations

import pytest

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.outage import Outage


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (UpstreamError("refused", "no"), True),
        (UpstreamError("unreachable", "no"), True),
        (UpstreamError("unresolved", "no"), True),
        (UpstreamError("timeout", "no"), True),
        (UpstreamError("disconnected", "no"), True),
        (UpstreamError("truncated", "no"), True),
        (UpstreamError("tls", "a certificate that we do not accept"), False),
        (UpstreamError("proxy", "only our own way"), False),
        (ApiError(502, "http_502", "bad gateway"), True),
        (ApiError(503, "ServiceUnavailable", "no"), True),
        (ApiError(504, "Timeout", "no"), True),
        (ApiError(504, "Timeout", "Timeout: Too large resource version: 9, current: 5"), False),
        (ApiError(500, "InternalError", "no"), False),
        (ApiError(429, "TooManyRequests", "no"), False),
        (ApiError(410, "Expired", "no"), False),
        (ApiError(403, "Forbidden", "no"), False),
    ],
)
def test_what_an_outage_is(clock, error, away):
    """An outage is a missing answer, not a refusal by either side."""
    outage = Outage(clock)
    outage.failed(error)
    assert (outage.seconds is not None) == away


def test_how_long_it_lasts(clock):
    """An outage lasts from the first failure to the first answer."""
    outage = Outage(clock)
    outage.failed(UpstreamError("disconnected", "no"))
    clock.now += 5.0
    outage.failed(UpstreamError("refused", "no"))
    outage.failed(UpstreamError("tls", "no"))
    assert outage.seconds == 5.0
    assert repr(outage) == "<Outage of 5s>"
    outage.failed(ApiError(403, "Forbidden", "no"))
    assert outage.seconds is None
    outage.failed(UpstreamError("refused", "no"))
    assert outage.seconds == 0.0
    outage.over()
    assert repr(outage) == "<Outage none>"
