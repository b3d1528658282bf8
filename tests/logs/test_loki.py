"""Bodies of pushes, and the meaning of answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmproxy.logs.lines import Mark
from kmproxy.logs.loki import (
    DOUBTS,
    REASONS,
    Delivery,
    Endpoint,
    Entry,
    Verdict,
    advice,
    body,
    entry_value,
    judge,
    reason_of,
    refuses_all,
)


def entries(count, labels=b'{"a":"b"}'):
    """Entries whose values are their numbers, of one stream."""
    return [Entry(labels, b'["%d","%d"]' % (n, n), 1, n, n, Mark(n), print) for n in range(count)]


def test_a_body():
    """The lines of a stream stand together, in their order."""
    one, two = b'{"team":"a"}', b'{"team":"b"}'
    given_ = [
        Entry(one, entry_value(7, b"x", b'{"pod":"p"}')[0], 1, 7, None, Mark(1), print),
        Entry(two, entry_value(8, b"", b"")[0], 0, 8, None, Mark(2), print),
        Entry(one, entry_value(5, b'"\\\n\x00\xc3\xbc', b"")[0], 6, 5, None, Mark(3), print),
    ]
    assert json.loads(body(given_)) == {
        "streams": [
            {"stream": {"team": "a"}, "values": [["7", "x", {"pod": "p"}], ["5", '"\\\n\x00ü']]},
            {"stream": {"team": "b"}, "values": [["8", ""]]},
        ]
    }


@pytest.mark.parametrize(
    ("text", "shown", "replaced"),
    [(b"a", "a", False), (b"a\xff\xc3", "a\ufffd\ufffd", True), (b"\xed\xa0\x80", "\ufffd" * 3, True), ("ü\u2028".encode(), "ü\u2028", False)],
)  # fmt: skip
def test_text_that_is_not_utf8(text, shown, replaced):
    """Each wrong byte is replaced, and the line is counted."""
    value, is_replaced = entry_value(1, text, b"")
    assert json.loads(value)[1] == shown
    assert is_replaced is replaced


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (204, b"", Verdict.TAKEN),
        *((status, b"", Verdict.ENDPOINT) for status in (200, 202, 301, 307, 308, 401, 403, 404, 405, 407, 415)),
        *((status, b"", Verdict.LATER) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, b"", Verdict.LINES) for status in (400, 409, 413, 422)),
        (400, b'unsupported path requested: "/x"', Verdict.ENDPOINT),
        (400, b"cannot parse common params from request: cannot parse accountID", Verdict.ENDPOINT),
        (400, b"of stream {x='unsupported path'}", Verdict.LINES),
    ],
)  # fmt: skip
def test_the_meaning_of_an_answer(status, text, verdict):
    """Only 204 is taken; what is about URL and credential is never about a line."""
    assert judge(status, text) is verdict
    if verdict is not Verdict.TAKEN:
        assert advice(status)


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (413, b"", "too_long"),
        (400, b"Max entry size '262144' bytes exceeded for stream '{}'", "too_long"),
        (400, b"entry for stream '{}' has timestamp too old: 2026, oldest acceptable", "too_old"),
        (400, b"entry too far behind, entry timestamp is: 2026", "too_old"),
        (400, b"entry for stream '{}' has timestamp too new: 2026", "too_new"),
        (400, b"stream '{}' has label name too long: 'x'", "labels"),
        (400, b"entry for stream '{}' has 16 label names; limit 15", "labels"),
        (400, b"what else", "rejected"), (422, b"", "rejected"),
        (400, b"x" * 5000 + b"too old", "rejected"),
    ],
)  # fmt: skip
def test_the_reason_of_a_refused_line(status, text, reason):
    """A bounded set, whatever the endpoint says."""
    assert reason_of(status, text) == reason
    assert reason in REASONS


def deliver(delivery, bad=(), words=b"entry too far behind"):
    """Answer like Loki: 400 for a push with a bad entry. Returns taken and lost numbers in order."""
    done, pushes = [], 0
    while (part := delivery.part()) is not None:
        pushes += 1
        refused = any(entry.time in bad for entry in part)
        outcome = delivery.answered(*((400, words) if refused else (204, b"")))
        done += [(entry.time, reason) for entry, reason in outcome.lost]
        done += [(entry.time, None) for entry in outcome.taken]
    return done, pushes


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_only_the_lines_at_fault_are_left_out(case):
    """In order, each once, with at most two pushes for each line."""
    count, bad = case
    done, pushes = deliver(Delivery(entries(count), Endpoint()), bad)
    assert done == [(n, "too_old" if n in bad else None) for n in range(count)]
    assert pushes <= 2 * count


def test_one_bad_line_of_a_thousand():
    """It is found in about twice as many pushes as there are halvings."""
    done, pushes = deliver(Delivery(entries(1024), Endpoint()), {700})
    assert len(done) == 1024
    assert pushes <= 21


def too_old(number, counted=None, reason="entry too far behind, oldest acceptable: 2026"):
    """Loki's words for so many lines of a stream, of which it names the first ten."""
    named = f"entry with timestamp 2026-11-30 03:09:10.1 +0000 UTC ignored, reason: '{reason}',\n"
    text = named * min(number, 10)
    ends = f"user 'x', total ignored: {number} out of {counted or number} for stream: {{a=\"b\"}}"
    return (text + ends).encode()


def test_lines_that_are_too_old_together():
    """Loki names each, so they are left out by one push, in their order among the others."""
    delivery, done, pushes = Delivery(entries(64), Endpoint()), [], 0
    while (part := delivery.part()) is not None:
        pushes += 1
        bad = [entry for entry in part if 16 <= entry.time < 48]
        words = too_old(len(bad), len(part))
        outcome = delivery.answered(*((400, words) if bad else (204, b"")))
        done += [(entry.time, reason) for entry, reason in outcome.lost]
        done += [(entry.time, None) for entry in outcome.taken]
    assert done == [(n, "too_old" if 16 <= n < 48 else None) for n in range(64)]
    assert pushes == 11


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, too_old(4, 5)), (400, too_old(5, 4)), (400, too_old(3)), (429, too_old(4)),
        (400, too_old(4, reason="Per stream rate limit exceeded")), (413, too_old(4)),
        (400, b"too far behind: total ignored: 4 out of 4"),
        (400, too_old(4).partition(b"total")[0]),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_name_each_line(status, text):
    """Some of the lines may be good, so the push is halved."""
    delivery = Delivery(entries(4), Endpoint(proven=True))
    assert delivery.answered(status, text).lost == ()
    assert not refuses_all(400, too_old(4), [*entries(3), *entries(1, labels=b'{"b":"c"}')])


def test_an_endpoint_that_refuses_everything():
    """No line is left out: the URL may be wrong. After a few pushes it is asked slowly."""
    endpoint = Endpoint()
    delivery = Delivery(entries(64), endpoint)
    quick = 0
    for _ in range(1000):
        outcome = delivery.answered(400, b"who are you?")
        assert not outcome.taken
        assert not outcome.lost
        quick += not outcome.wait
    assert not endpoint.proven
    assert quick < 1000 / 64 * 4 * DOUBTS
    done, _ = deliver(delivery)
    assert done == [(n, None) for n in range(64)]


def test_a_line_refused_before_the_endpoint_is_proven():
    """It is tried again once another line was taken, and left out then, in the order of lines."""
    done, _ = deliver(Delivery(entries(8), Endpoint()), {0, 1, 5}, b"no words of Loki")
    assert done == [(n, "rejected" if n in {0, 1, 5} else None) for n in range(8)]


def test_a_proven_endpoint():
    """Alone on an endpoint that took lines before, the line at fault is left out at once."""
    done, pushes = deliver(Delivery(entries(1), Endpoint(proven=True)), {0}, b"")
    assert (done, pushes) == ([(0, "rejected")], 1)


ANSWERS = st.sampled_from([204, 204, 204, 400, 413, 422, 429, 500, 404, 401, 302, 200, None])


@given(st.integers(1, 20), st.lists(ANSWERS, max_size=60), st.booleans())
def test_any_answers(count, answers, proven):
    """Each entry is done with exactly once, in order, taken or lost; nothing is lost in doubt."""
    endpoint = Endpoint(proven=proven)
    delivery = Delivery(entries(count), endpoint)
    done = []
    for status in [*answers, *[204] * 100]:
        if delivery.part() is None:
            break
        outcome = delivery.failed(stored=True) if status is None else delivery.answered(status)
        assert not outcome.lost or endpoint.proven
        if outcome.wait:
            assert status != 204
        done += [entry.time for entry, _ in outcome.lost]
        done += [entry.time for entry in outcome.taken]
    assert done == list(range(count))
