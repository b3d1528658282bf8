"""`kmproxy logs` as a process: each line once, under the team of the moment."""

import asyncio
import json

from tests.support.loki import got, run, shipping, until


async def test_a_line_and_its_labels(logs, loki, command):
    """The stream has the namespace's labels, the metadata the pod's names."""
    app = logs.start("shop", "web-0").containers["app"]
    stamp = app.write("hello", "stderr")
    async with shipping(*command):
        await loki.has("hello")
    (entry,) = loki.entries
    assert entry.stream == {
        "namespace": "shop", "container": "app", "stream": "stderr", "team": "red",
    }  # fmt: skip
    assert entry.metadata == {"pod": "web-0", "node": "node-a", "instance": "0"}
    assert entry.time == stamp


async def test_rotations_and_restarts(logs, loki, command):
    """Files are rotated and containers restart: each line once, in the container's order."""
    pod = logs.start("shop", "web-0", ["app", "sidecar"], init=["prepare"])
    pod.containers["prepare"].write("prepared")
    pod.containers["prepare"].stop()
    app = pod.containers["app"]
    wanted = ["prepared"]
    async with shipping(*command):
        for turn in range(4):
            for number in range(20):
                app.write(f"turn {turn} line {number}")
                wanted.append(f"turn {turn} line {number}")
            await loki.has(wanted[-1])
            renamed = app.rotate(reopen=False)
            app.write(f"late {turn}")
            wanted.append(f"late {turn}")
            app.reopen()
            assert renamed.exists()
        app.restart()
        app.write(b"x" * 40_000)
        wanted.append("x" * 40_000)
        await loki.has(*wanted)
    assert loki.repeated() == {}
    assert sorted(loki.texts) == sorted(wanted)
    assert [each for each in loki.texts if each != "prepared"] == wanted[1:]


async def test_a_pod_that_is_deleted(logs, loki, command):
    """Its last lines are read before its files go."""
    pod = logs.start("shop", "web-0")
    app = pod.containers["app"]
    async with shipping(*command):
        app.write("first")
        await loki.has("first")
        logs.delete(pod)
        app.write("last")
        app.stop()
        await loki.has("last")
        logs.remove(pod)
    assert loki.texts == ["first", "last"]


async def test_the_endpoint_is_away(logs, loki, command):
    """Pushes that fail or find nobody are tried again; nothing is lost or repeated."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command):
        app.write("one")
        await loki.has("one")
        loki.status = 503
        app.write("two")
        pushes = loki.pushes
        await until(lambda: loki.pushes > pushes)
        await loki.stop()
        app.write("three")
        await asyncio.sleep(0.1)
        loki.status = 204
        await loki.start()
        await loki.has("two", "three")
    assert loki.texts == ["one", "two", "three"]


async def test_a_kill_between_the_answer_and_the_position(logs, loki, command):
    """At most the last unacknowledged batch comes twice."""
    app = logs.start("shop", "web-0").containers["app"]
    environment, flags = command
    async with shipping(environment, flags) as (process, _):
        app.write("first")
        await loki.has("first")
        app.write("second")
        await loki.has("second")
        process.kill()
        await process.wait()
    assert loki.stored[-1] == {"second"}
    async with shipping(environment, flags):
        app.write("third")
        await loki.has("third")
    assert "first" not in loki.repeated()
    assert set(loki.texts) == {"first", "second", "third"}


async def test_the_page_and_the_targets(logs, loki, command):
    """Both show the container; the telemetry port names none."""
    app = logs.start("shop", "web-0").containers["app"]
    async with shipping(*command) as (_, (page, telemetry)):
        app.write("hello")
        await loki.has("hello")
        (target,) = json.loads(await got(page, "/targets"))
        text = await got(page, "/")
        found, none = await got(page, "/?q=web&sort=name"), await got(page, "/?tenant=nobody")
        wrong = await got(page, "/?sort=size")
        facts = json.loads(await got(page, "/", Accept="application/json"))
        assert (await got(telemetry, "/readyz")).strip() == "ok"
        metrics = await got(telemetry, "/metrics")
    assert target["container"] == "app"
    assert target["labels"] == {"namespace": "shop", "container": "app", "team": "red"}
    assert target["last_error"] is None
    assert "shop/web-0/app" in text
    assert "shop/web-0/app" in found
    assert "shop/web-0/app" not in none
    assert "one of worst, name" in wrong
    assert (facts["health"], facts["containers"]["total"]) == ("well", 1)
    assert facts["containers"]["rows"] == [
        target | {"position": facts["containers"]["rows"][0]["position"]}
    ]
    assert "shop" not in metrics
    assert "kmproxy_log_lines_sent_total 1.0" in metrics
    assert "kmproxy_log_lines_read_total 1.0" in metrics


async def test_tenants(cluster, logs, loki, command, tmp_path):
    """A stream's tenant is its label's value, or what the map says."""
    cluster.api.namespaces.apply("bank", {"team": "gold"})
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"tenants": {"gold": "tenant-1"}, "tenant-label": "team"}))
    logs.start("shop", "web-0").containers["app"].write("of red")
    logs.start("bank", "web-0").containers["app"].write("of gold")
    environment, flags = command
    async with shipping(environment, [*flags, f"--config={config}"]):
        await loki.has("of red", "of gold")
    found = {entry.text: entry.tenant for entry in loki.entries}
    assert found == {"of red": "red", "of gold": "tenant-1"}


async def test_labels_of_pods(logs, loki, command):
    """With --stream-label they are labels of the stream, otherwise metadata."""
    pod = logs.start("shop", "web-0", labels={"app": "web", "tier": "front"})
    pod.containers["app"].write("hello")
    environment, flags = command
    flags += ["--workload", "--pod-label=app", "--pod-label=tier"]
    flags += ["--stream-label=namespace", "--stream-label=app"]
    async with shipping(environment, flags):
        await loki.has("hello")
    (entry,) = loki.entries
    assert entry.stream == {"namespace": "shop", "app": "web", "team": "red"}
    assert entry.metadata == {
        "container": "app", "stream": "stdout", "pod": "web-0", "node": "node-a", "instance": "0",
        "tier": "front", "workload": "web-0", "workload_type": "barepod",
    }  # fmt: skip


async def test_the_selection(logs, loki, command):
    """Globs of namespaces and containers decide whose logs are read."""
    logs.start("shop", "web-0", ["app", "istio-proxy"])
    for name, container in logs.pods[0].containers.items():
        container.write(f"of {name}")
    logs.start("kube-system", "dns").containers["app"].write("of dns")
    environment, flags = command
    flags += ["--exclude-namespace=kube-*", "--exclude-container=istio-*"]
    async with shipping(environment, flags):
        await loki.has("of app")
        logs.pods[0].containers["app"].write("end")
        await loki.has("end")
    assert loki.texts == ["of app", "end"]


async def test_a_kubelet_that_serves_no_logs(cluster, logs, command):
    """It is said once, plainly."""
    cluster.kubelets["node-a"].serves_logs = False
    logs.start("shop", "web-0")
    async with shipping(*command) as (process, _):
        await until(lambda: any("serves no logs" in line for line in process.said))
        found = [line for line in process.said if "serves no logs" in line]
    assert len(found) == 1
    assert "enableSystemLogHandler" in found[0]


async def test_no_push_endpoint(logs, loki, command):
    """404: one line that names the usual path, and exit 2."""
    environment, flags = command
    status, said = await run(environment, [*flags, f"--loki-url={loki.url}/x"])
    assert status == 2
    assert said.count("\n") == 1
    assert "its path usually is /loki/api/v1/push" in said


async def test_unwritable_positions(logs, tmp_path, command):
    """One line, and exit 2."""
    environment, flags = command
    status, said = await run(environment, [*flags, f"--positions={tmp_path}/none/p.json"])
    assert status == 2
    assert said.count("\n") == 1
    assert "cannot be written: No such file or directory; give a file on a writable volume" in said


async def test_damaged_positions(logs, loki, command, tmp_path):
    """They are refused; with --positions-damaged=begin reading begins anew."""
    environment, flags = command
    (tmp_path / "positions.json").write_text("x")
    (tmp_path / "positions.json").chmod(0o600)
    status, said = await run(environment, flags)
    assert status == 2
    assert "--positions-damaged=begin" in said
    app = logs.start("shop", "web-0").containers["app"]
    app.write("hello")
    async with shipping(environment, [*flags, "--positions-damaged=begin"]) as (process, _):
        await loki.has("hello")
        assert any("begins anew" in line for line in process.said)
