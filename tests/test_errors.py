"""The tree of errors in the docstring is the real one."""

import inspect
import re

import pytest

from kmproxy import errors
from kmproxy.errors import AccessError, ApiError, ConfigError, KmproxyError, UpstreamError


def drawn():
    """The parent of each class, as drawn in the module's docstring."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([ │├└─]*)([A-Z][A-Za-z]+Error)\b", line):
            depth, name = len(found[1]), found[2]
            path = [(at, other) for at, other in path if at < depth]
            parents[name] = path[-1][1] if path else "Exception"
            path.append((depth, name))
    return parents


def test_the_tree_is_as_drawn():
    """The docstring has every class under its base class."""
    classes = {
        name: cls.__base__.__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert {"KmproxyError", "ConfigError", "UpstreamError", "ApiError"} <= set(classes)
    assert drawn() == classes


def test_config_error_holds_every_problem():
    """All problems are kept in order, and shown one per line."""
    error = ConfigError(["first", "second"])
    assert error.problems == ("first", "second")
    assert str(error) == "first\nsecond"


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (UpstreamError("tls", "no trust"), "tls", 502),
        (UpstreamError("timeout", "fell silent", status=504), "timeout", 504),
        (ApiError(410, "Expired", "too old"), "Expired", 502),
        (ApiError(404, "NotFound", "no such node", status=404), "NotFound", 404),
    ],
)
def test_an_upstream_error_knows_what_a_scraper_sees(error, reason, status):
    """It has a short reason, and the status for the scraper, by default 502."""
    assert isinstance(error, KmproxyError)
    assert (error.reason, error.status) == (reason, status)
    assert "\n" not in str(error)


def test_an_access_error_knows_what_a_caller_sees():
    """It has the status for the caller, and a reason for the metric."""
    error = AccessError(403, "denied", "you may not")
    assert isinstance(error, KmproxyError)
    assert (error.status, error.reason, str(error)) == (403, "denied", "you may not")


def test_an_api_error_knows_the_answer():
    """The API server's code and its requested pause are apart from our status."""
    error = ApiError(429, "TooManyRequests", "slow down", retry_after=3.0)
    assert (error.code, error.retry_after, error.status) == (429, 3.0, 502)
    assert ApiError(500, "InternalError", "oops").retry_after is None


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (ApiError(500, "InternalError", "planted"), "the API server answered 500 InternalError"),
        (
            ApiError(401, "Unauthorized", "planted"),
            "the API server does not accept kmproxy's credentials (401)",
        ),
        (ApiError(200, "garbage", "it is no list"), "it is no list"),
    ],
)
def test_what_may_be_shown_of_an_api_error(error, summary):
    """Its code and reason, not the API server's text; kmproxy's own text if any."""
    assert error.summary == summary
