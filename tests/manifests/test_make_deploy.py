"""`make deploy` and `make undeploy`: the kubectl commands that they run, and when they refuse."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.support.manifests import by_name, every_overlay
from tests.support.overlays import MANIFESTS, ROOT, built, of_kind, pod_of

KUBECTL = """#!/bin/sh
[ "$1" = kustomize ] && exec kubectl "$@"
echo "$@" >>asked
[ "$1" != get ] || cat there
"""


def make(folder, *arguments, there=(), check=True):
    """Run make in a folder that has our manifests, beside a cluster that has these ClusterRoles.

    Its kubectl but writes down what else it is given.
    """
    (folder / "manifests").symlink_to(MANIFESTS)
    roles = "".join(f"clusterrole.rbac.authorization.k8s.io/{each}\n" for each in there)
    (folder / "there").write_text(roles)
    recorder = folder / "kubectl"
    recorder.write_text(KUBECTL, "utf-8")
    recorder.chmod(0o755)
    return subprocess.run(
        ["make", "-C", folder, "-f", ROOT / "Makefile", f"KUBECTL={recorder}", *arguments],
        check=check,
        capture_output=True,
        text=True,
    )


LOOK = "get clusterroles --selector=app.kubernetes.io/name=kmproxy --output=name\n"
APPLY = "apply -f dist/install.yaml\n"


@pytest.mark.program("kubectl", "make")
@every_overlay
def test_make_deploy(overlay, tmp_path):
    """The overlay with the image is written to dist/install.yaml, and applied."""
    make(tmp_path, "deploy", f"OVERLAY={overlay}", "IMG=registry.example.com:5000/kmproxy:1.2.3")
    installer = list(yaml.safe_load_all((tmp_path / "dist/install.yaml").read_text("utf-8")))
    expected = built(overlay)
    pod_of(expected)[1]["image"] = "registry.example.com:5000/kmproxy:1.2.3"
    assert by_name(installer) == by_name(expected)
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["install.yaml"]
    assert (tmp_path / "asked").read_text() == LOOK + APPLY


@pytest.mark.program("kubectl", "make")
@pytest.mark.parametrize(
    ("running", "overlay"),
    [("deployment", "daemonset"), ("daemonset", "deployment"), ("deployment", "deployment-direct"),
     ("deployment-direct", "deployment"), ("daemonset", "deployment-direct")],
)  # fmt: skip
def test_make_deploy_beside_another_overlay(running, overlay, tmp_path):
    """It refuses, says what to do, and applies nothing: both would run, with the rights of both."""
    roles = [one["metadata"]["name"] for one in of_kind(built(running), "ClusterRole")]
    done = make(tmp_path, "deploy", f"OVERLAY={overlay}", there=roles, check=False)
    assert done.returncode != 0
    assert f"make undeploy OVERLAY={running}" in done.stderr
    assert (tmp_path / "asked").read_text() == LOOK


@pytest.mark.program("kubectl", "make")
@pytest.mark.parametrize(
    ("running", "overlay"),
    [("daemonset", "daemonset"), ("daemonset", "recommended"), ("recommended", "daemonset"),
     ("deployment", "deployment"), ("deployment-direct", "deployment-direct")],
)  # fmt: skip
def test_make_deploy_over_itself(running, overlay, tmp_path):
    """The same overlay once more, and the safe one in the place of the simple one, are applied."""
    roles = [one["metadata"]["name"] for one in of_kind(built(running), "ClusterRole")]
    make(tmp_path, "deploy", f"OVERLAY={overlay}", there=roles)
    assert (tmp_path / "asked").read_text() == LOOK + APPLY


@pytest.mark.program("kubectl", "make")
def test_make_deploy_without_a_cluster(tmp_path):
    """What cannot be looked at is not applied over."""
    (tmp_path / "kubectl-false").write_text(
        '#!/bin/sh\n[ "$1" = kustomize ] && exec kubectl "$@"\nexit 1\n'
    )
    (tmp_path / "kubectl-false").chmod(0o755)
    done = make(tmp_path, "deploy", f"KUBECTL={tmp_path / 'kubectl-false'}", check=False)
    assert done.returncode != 0
    assert "undeploy" not in done.stderr


@pytest.mark.program("kubectl", "make")
def test_make_undeploy(tmp_path):
    """What was applied is deleted, and what is gone already does no harm."""
    make(tmp_path, "undeploy")
    assert (tmp_path / "asked").read_text() == "delete --ignore-not-found -f dist/install.yaml\n"


@pytest.mark.program("make")
def test_make_help():
    """Every target that is no file is listed, with what it does."""
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True
    )
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert list(listed) == phony
    assert {"docker-build", "docker-push", "deploy", "undeploy", "build-installer"} < set(listed)
