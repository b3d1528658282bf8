"""`kmproxy logs` as a process, from log files and through the API server: each line once."""

import signal

import pytest

from tests.support.loki import shipping, until

of_both = pytest.mark.parametrize("source", ["files", "api"])


@of_both
async def test_a_namespace_that_moves(cluster, logs, loki, command):
    """Lines before the move have the old team, lines after it the new one, and none comes twice."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
        for number in range(50):
            app.write(f"before {number}")
        await loki.has("before 49")
        cluster.api.namespaces.apply("shop", {"team": "blue"})
        app.write("in between")
        await loki.has("in between")
        for number in range(50):
            app.write(f"after {number}")
        await loki.has("after 49")
    teams = {entry.text: entry.stream["team"] for entry in loki.entries}
    assert len(loki.entries) == 101
    assert loki.repeated() == {}
    assert {team for text, team in teams.items() if text.startswith("before")} == {"red"}
    assert {team for text, team in teams.items() if text.startswith("after")} == {"blue"}


@of_both
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_us(logs, loki, command, how):
    """After SIGTERM nothing comes twice, after a kill at most the last push. Nothing is lost."""
    app = logs.start("shop", "web-0").containers["app"]
    written = []

    def write(begin, end):
        for number in range(begin, end):
            app.write(f"line {number}")
            written.append(f"line {number}")

    async with shipping(*command) as (process, _):
        write(0, 200)
        await loki.has("line 199")
        write(200, 205)
        process.send_signal(how)
        await process.wait()
    last = loki.stored[-1]
    write(205, 210)
    app.restart()
    write(210, 215)
    async with shipping(*command):
        await loki.has(*written)
        app.write("end")
        await loki.has("end")
    assert set(loki.texts) == {*written, "end"}
    if how == signal.SIGTERM:
        assert process.returncode == 0
        assert loki.repeated() == {}
    else:
        assert set(loki.repeated()) <= last
        assert set(loki.repeated().values()) <= {2}


@pytest.mark.parametrize(
    ("source", "verb", "resource"),
    [
        ("files", "get", "nodes/log"), ("api", "get", "pods/log"), ("api", "list", "pods"),
        ("api", "watch", "pods"),
    ],
)  # fmt: skip
async def test_what_is_missing_is_said(cluster, logs, loki, command, verb, resource):
    """Without a permission the line names it, and reading goes on once it is granted."""
    cluster.api.deny(verb, resource)
    async with shipping(*command) as (process, _):
        logs.start("shop", "web-0").containers["app"].write("hello")
        await until(lambda: any(f"resources [{resource}]" in line for line in process.said))
        cluster.api.allow(verb, resource)
        await loki.has("hello")
