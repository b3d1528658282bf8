"""Answers of the simulated API server; their faults are in `api/test_api_faults.py`."""

import asyncio

import pytest

from kmproxy.simulator.answers import ApiFailure, ApiFault, headers, spoiled


def test_every_answer_can_be_told_apart():
    """It has its own audit id, must not be cached, and has the given headers."""
    first, second = headers({"A": "b"}), headers({})
    assert first["Audit-Id"] != second["Audit-Id"]
    assert first["Cache-Control"] == "no-cache, private"
    assert first["A"] == "b"


def test_a_failure_is_a_status():
    """Its fields are those of a Status object, with the pause."""
    failure = ApiFailure(ApiFault.STATUS, status=429, message="slow down", retry_after=3)
    error = failure.error()
    assert (error.code, error.headers) == (429, {"Retry-After": "3"})
    assert error.status["message"] == "slow down"
    assert error.status["reason"] == "TooManyRequests"


@pytest.mark.parametrize(
    ("fault", "said"), [(ApiFault.CUT, [2, b"12"]), (ApiFault.HANG, [0]), (ApiFault.SILENT, [0])]
)
async def test_raw_answers(fault, said):
    """Half a body under the length of the whole, or nothing at the server's end."""
    closing = asyncio.Event()
    closing.set()
    pieces = [piece async for piece in spoiled(ApiFailure(fault), b"1234", closing)._pieces]
    assert [len(pieces[:-1]), *pieces[-1:]] == said
