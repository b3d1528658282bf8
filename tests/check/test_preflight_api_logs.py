"""The preflight of `kmproxy logs --source api`: its permissions, and one log that is read."""

import pytest

from kmproxy.simulator.logs import SimLogs
from tests.support.preflight import Preflight

FLAGS = (
    "--logs",
    "--loki-url=http://127.0.0.1:9/loki/api/v1/push",
    "--source=api",
    "--namespace=payments",
    "--container=app",
)


class WithoutNode(Preflight):
    """A preflight whose flags name no node."""

    def flags(self, *more):
        """The flags of a pod."""
        return [f"--service-account-dir={self.directory}", *more]


@pytest.fixture
def preflight(cluster, tmp_path):
    """Runs of the check."""
    return WithoutNode(cluster, tmp_path / "sa")


@pytest.fixture
def logs(cluster, tmp_path):
    """One container, and a daemon that has what it needs, and nothing for nodes."""
    for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
        cluster.api.allow(verb, resource)
    for resource in ("nodes/metrics", "nodes/proxy", "nodes/pods"):
        cluster.api.deny("get", resource)
    with SimLogs(tmp_path / "log") as made:
        cluster.show_logs("node-a", made)
        made.start("payments", "web-0").containers["app"].write("hello")
        yield made


async def test_all_is_well(preflight, logs):
    """The permissions of this source are wanted, and no kubelet is asked."""
    status, shown, _ = await preflight.process(*FLAGS)
    assert status == 0, shown
    assert "get pods/log" in shown
    assert "nodes/" not in shown
    assert "the log of web-0/app was read" in shown


@pytest.mark.parametrize(("verb", "resource"), [("get", "pods/log"), ("list", "pods")])
async def test_a_missing_permission(preflight, cluster, logs, verb, resource):
    """The row names it, and the rule that grants it."""
    cluster.api.deny(verb, resource)
    status, shown, _ = await preflight.process(*FLAGS)
    assert status == 1
    assert f"resources [{resource}]" in shown
