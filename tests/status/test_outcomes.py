"""The memory of the last scrapes: what is remembered, what is red, and how much it may hold."""

import pytest

from kmproxy.status.outcomes import HISTORY, MAX_ERROR, Attempt, Outcomes, Scraped, Survey

PATH = "/api/v1/nodes/{node}/proxy/metrics"
A, B = Scraped(PATH, "a"), Scraped(PATH, "b")


def noted(*codes, error="it failed"):
    """The outcome after scrapes with these codes, one in a second."""
    outcomes, subject = Outcomes(), Scraped("/metrics")
    for second, code in enumerate(codes):
        attempt = Attempt(10, 4, error=error)
        outcomes.note(subject, attempt, code, now=float(second), took=0.5)
    return outcomes.of(subject)


@pytest.mark.parametrize(
    ("codes", "state", "history"),
    [
        (["200"], "well", "+"),
        (["502"], "failing", "-"),
        (["200", "broken"], "failing", "+-"),
        (["503", "504", "200"], "well", "--+"),
        (["200", "gone"], "left", "+~"),
        (["error"], "failing", "-"),
        (["502", "404", "400"], "failing", "-"),
    ],
)
def test_the_state_is_that_of_the_last_scrape(codes, state, history):
    """A client that left is no failure, and a path that does not exist is not remembered."""
    outcome = noted(*codes)
    assert (outcome.state, outcome.history) == (state, history)


def test_what_does_not_exist_leaves_nothing():
    """No number of invented names takes memory."""
    assert noted("404", "400") is None


def test_the_last_error_stays_after_a_good_scrape():
    """It tells when it happened; `failing_since` ends with the first whole answer."""
    outcome = noted("200", "502", "504", "200", error="the kubelet refused")
    assert (outcome.error, outcome.error_at, outcome.failing_since) == (
        "the kubelet refused",
        2.0,
        None,
    )
    outcome = noted("200", "502", "gone", "504")
    assert (outcome.error_at, outcome.failing_since) == (3.0, 1.0)


def test_an_error_is_one_short_line():
    """Control characters are spelled out, and the rest is cut."""
    assert noted("502", error="a\nb").error == "a\\nb"
    assert len(noted("502", error="x" * 5000).error) == MAX_ERROR
    assert "log" in noted("error", error="").error


def test_the_history_is_short():
    """Only the last scrapes are shown."""
    assert noted(*["502"] * 3, *["200"] * HISTORY).history == "+" * HISTORY


def test_a_failing_node_does_not_hide_in_the_path_of_all():
    """The shared path keeps its last good scrape; the survey counts the failing nodes."""
    outcomes = Outcomes()
    for subject, code in ((A, "200"), (B, "502")):
        outcomes.note(subject, Attempt(node=subject.node, error="no"), code, now=1.0, took=1.0)
    assert outcomes.of(Scraped(PATH)).state == "well"
    survey = Survey.of(outcomes.nodes())
    assert (survey.counts[PATH], survey.failing_of[PATH]) == (2, 1)


def test_the_worst_come_first():
    """The node that fails for the longest time, then the other one, then the slowest."""
    outcomes = Outcomes()
    for number in range(6):
        outcomes.note(Scraped(PATH, f"n{number}"), Attempt(), "200", now=0.0, took=float(number))
    for now, name in ((1.0, "n2"), (2.0, "n1"), (3.0, "n2")):
        outcomes.note(Scraped(PATH, name), Attempt(), "502", now=now, took=0.0)
    survey = Survey.of(outcomes.nodes())
    assert [subject.node for subject, _ in survey.worst(9, 4)] == ["n2", "n1", "n5", "n4"]
    assert [subject.node for subject, _ in survey.worst(1, 0)] == ["n2"]


def test_the_memory_is_bounded_in_number_and_in_bytes():
    """The entries that were not scraped for the longest time are dropped."""
    few, small = Outcomes(number=10), Outcomes(path_bytes=20_000)
    for outcomes in (few, small):
        for number in range(500):
            attempt = Attempt(error="\N{SNOWMAN}" * 1000)
            subject = Scraped("/metrics", caller=f"tenant-{number}")
            outcomes.note(subject, attempt, "502", now=float(number), took=0.0)
    assert [name for name, _ in few.tenants("/metrics")] == [f"tenant-{n}" for n in range(490, 500)]
    assert 5 < len(list(small.tenants("/metrics"))) < 20
