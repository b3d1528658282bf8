"""`make deploy` and `make undeploy`: their kubectl commands, and when they refuse."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from kmproxy import __version__
from tests.support.documents import PAGES, block
from tests.support.kustomize import build
from tests.support.manifests import by_name, every_overlay
from tests.support.overlays import MANIFESTS, OVERLAYS, ROOT, built, of_kind, pod_of

KUBECTL = """#!/bin/sh
[ "$1" = kustomize ] && exec kubectl "$@"
echo "$@" >>asked
[ "$1" != get ] || cat there
"""


def make(folder, *arguments, there=(), check=True):
    """Runs make in a folder with our manifests, beside a cluster with these ClusterRoles.

    A stand-in for kubectl records its other arguments.
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
def test_the_image_has_a_version(tmp_path):
    """Every pod runs the image of this version, and a node that has it does not pull it again."""
    objects = [one for overlay in OVERLAYS for one in built(overlay)]
    objects += build(MANIFESTS / "logs") + build(MANIFESTS / "logs-api")
    workloads = of_kind(objects, "DaemonSet", "Deployment", "StatefulSet")
    pods = [each for one in workloads for each in one["spec"]["template"]["spec"]["containers"]]
    assert len(pods) == len(OVERLAYS) + 2
    wanted = {(f"kmproxy:{__version__}", "IfNotPresent")}
    assert {(pod["image"], pod["imagePullPolicy"]) for pod in pods} == wanted
    make(tmp_path, "deploy")
    installer = list(yaml.safe_load_all((tmp_path / "dist/install.yaml").read_text("utf-8")))
    assert by_name(installer) == by_name(built("daemonset"))


@pytest.mark.program("kubectl", "make")
def test_the_development_overlay(tmp_path):
    """The documented lines build, load and deploy one image; all else is as in `daemonset`."""
    made, built_here, loaded, deployed, checked = block("kind create cluster").splitlines()
    assert made == "kind create cluster"
    shown = subprocess.run(
        [*built_here.split(), "-n"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    image = loaded.removeprefix("kind load docker-image ")
    assert shown.rstrip().endswith(f"--tag {image} .")
    assert f"minikube image load {image}" in PAGES["docs/install.md"]
    make(tmp_path, *deployed.split()[1:])
    installer = list(yaml.safe_load_all((tmp_path / "dist/install.yaml").read_text("utf-8")))
    expected = built("daemonset")
    pod_of(expected)[1]["image"] = image
    assert by_name(installer) == by_name(expected)
    assert checked == "kubectl exec -n kmproxy-system ds/kmproxy -- kmproxy check"


@pytest.mark.program("kubectl", "make")
@pytest.mark.parametrize(
    ("running", "overlay"),
    [("deployment", "daemonset"), ("daemonset", "deployment"), ("deployment", "deployment-direct"),
     ("deployment-direct", "deployment"), ("daemonset", "deployment-direct")],
)  # fmt: skip
def test_make_deploy_beside_another_overlay(running, overlay, tmp_path):
    """It refuses with advice, and applies nothing: both would run, with both sets of rights."""
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
    """The same overlay, and the safe one over the simple one, are applied."""
    roles = [one["metadata"]["name"] for one in of_kind(built(running), "ClusterRole")]
    make(tmp_path, "deploy", f"OVERLAY={overlay}", there=roles)
    assert (tmp_path / "asked").read_text() == LOOK + APPLY


@pytest.mark.program("kubectl", "make")
def test_make_deploy_without_a_cluster(tmp_path):
    """Without a readable cluster nothing is applied."""
    (tmp_path / "kubectl-false").write_text(
        '#!/bin/sh\n[ "$1" = kustomize ] && exec kubectl "$@"\nexit 1\n'
    )
    (tmp_path / "kubectl-false").chmod(0o755)
    done = make(tmp_path, "deploy", f"KUBECTL={tmp_path / 'kubectl-false'}", check=False)
    assert done.returncode != 0
    assert "undeploy" not in done.stderr


@pytest.mark.program("kubectl", "make")
def test_make_undeploy(tmp_path):
    """The applied objects are deleted. Missing ones are no error."""
    make(tmp_path, "undeploy")
    assert (tmp_path / "asked").read_text() == "delete --ignore-not-found -f dist/install.yaml\n"


@pytest.mark.program("make")
def test_make_help():
    """Every target is listed with its description."""
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True
    )
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert list(listed) == phony
    assert {"docker-build", "docker-push", "deploy", "undeploy", "build-installer"} < set(listed)
