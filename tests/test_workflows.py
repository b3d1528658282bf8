"""The workflows of .github: what they may do, what they run, and the linters' verdict."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.documents import ROOT
from tests.support.programs import which

GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)

TARGETS = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

SET_UP = {
    "pipx install uv==0.13.9",
    'echo "there=$THERE" >>"$GITHUB_OUTPUT"',
    'echo "IMG=ghcr.io/${GITHUB_REPOSITORY,,}:${GITHUB_REF_NAME#v}" >>"$GITHUB_ENV"',
    'echo "CHARTS=ghcr.io/${GITHUB_REPOSITORY_OWNER,,}/charts" >>"$GITHUB_ENV"',
    'echo "name=${IMG%:*}" >>"$GITHUB_OUTPUT"',
    'echo "digest=$(make -s image-digest)" >>"$GITHUB_OUTPUT"',
    (
        'gh release create "$GITHUB_REF_NAME" --verify-tag --title "kmproxy $GITHUB_REF_NAME" '
        "--notes-file dist/notes.md dist/*.whl dist/*.tar.gz dist/*.tgz dist/kmproxy.1"
    ),
}
"""All lines of the workflows that are no target of the Makefile."""

RIGHTS = {
    "image": {"packages", "id-token", "attestations"},
    "index": {"id-token"},
    "chart": {"contents", "packages", "id-token"},
}
"""All rights to write, by the jobs of the release. No job of another workflow has one."""


def jobs(path):
    """The jobs of a workflow by name."""
    return yaml.safe_load(path.read_text("utf-8"))["jobs"]


def steps(path):
    """The steps of all jobs of a workflow."""
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_all_of_them():
    """There are three."""
    assert [path.stem for path in WORKFLOWS] == ["ci", "nightly", "release"]


@every_workflow
def test_every_action_is_pinned(path):
    """By a whole commit, with the version beside it."""
    used = re.findall(r"^ *- uses: (.*)$", path.read_text("utf-8"), re.MULTILINE)
    assert len(used) == sum("uses" in step for step in steps(path)) > 0
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


@every_workflow
def test_rights(path):
    """None by default. A job has what it needs, and only the release may write."""
    document = yaml.safe_load(path.read_text("utf-8"))
    assert document["permissions"] == {}
    found = {}
    for name, job in document["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 150
        if writes := {right for right, how in job["permissions"].items() if how != "read"}:
            found[name] = writes
    assert found == (RIGHTS if path.stem == "release" else {})
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@every_workflow
def test_every_step_is_a_target(path):
    """It runs here, too. No text of an event is put into a script."""
    for step in steps(path):
        for line in filter(None, map(str.strip, step.get("run", "").splitlines())):
            assert "${{" not in line
            if line not in SET_UP:
                words = line.removeprefix("sudo ").split()
                assert words[0] == "make", line
                assert words[1] in TARGETS, line


def test_the_pythons():
    """CI runs each Python that the package names."""
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert jobs(GITHUB / "workflows/ci.yml")["test"]["strategy"]["matrix"]["python"] == named


def test_nothing_is_published_before_all_is_built():
    """The jobs that publish need the check and all builds. A missing engine is not built."""
    release = jobs(GITHUB / "workflows/release.yml")

    def needs(name):
        direct = release[name].get("needs", [])
        direct = {direct} if isinstance(direct, str) else {*direct}
        return direct.union(*map(needs, direct))

    assert needs("image") == {"check", "build", "engine"}
    assert {"check", "build", "engine", "image"} <= needs("index") & needs("chart")
    assert release["engine"]["if"] == "needs.check.outputs.engine == 'true'"
    assert {release[name]["environment"] for name in ("index", "chart")} == {"release"}


def test_what_is_renewed():
    """The actions, the base image, and each module of Go."""
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text("utf-8"))["updates"]
    kinds = {each["package-ecosystem"]: each for each in updates}
    assert kinds.keys() == {"github-actions", "docker", "gomod", "cargo"}
    modules = {f"/{path.parent.relative_to(ROOT)}" for path in ROOT.glob("tests/*/go.mod")}
    assert {*kinds["gomod"]["directories"]} == modules


@pytest.mark.parametrize(
    "path", sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml")), ids=lambda path: path.stem
)
def test_issue_forms(path):
    """Each form has a name, and each of its questions an id of its own and a label."""
    document = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "config":
        assert document["blank_issues_enabled"] is False
        return
    asked = [each for each in document["body"] if each["type"] != "markdown"]
    assert {"name", "description", "body"} <= document.keys()
    assert len({each["id"] for each in asked}) == len(asked) > 0
    assert all(each["attributes"]["label"] for each in asked)


def test_owners():
    """Each pattern of CODEOWNERS is about files that are there, and names its owners."""
    for line in (GITHUB / "CODEOWNERS").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern, *owners = line.split()
            assert owners
            assert all(owner.startswith("@") for owner in owners)
            assert pattern == "*" or list(ROOT.glob(pattern.strip("/"))), pattern


def test_zizmor():
    """It has no finding, not even a pedantic one."""
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("zizmor is not installed")
    done = subprocess.run(
        [zizmor, "--offline", "--persona=pedantic", "--no-progress", ".github"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.program("actionlint")
def test_actionlint():
    """It has no finding."""
    done = subprocess.run(
        [which("actionlint")], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


CALLED = {
    "docker": [
        (
            "docker buildx build --build-arg REVISION=abc --build-arg VERSION={version} "
            "--build-arg CREATED=now --platform linux/amd64,linux/arm64 --sbom=true "
            "--provenance=mode=max --metadata-file dist/image.json --push "
            "--tag r.example.com:5000/a/kmproxy:9 ."
        )
    ],
    "helm": ["helm push dist/kmproxy-{version}.tgz oci://r.example.com/charts"],
    "cosign": [
        "cosign sign --yes r.example.com:5000/a/kmproxy@sha256:{digest}",
        "cosign sign --yes r.example.com/charts/kmproxy@sha256:{digest}",
    ],
}
"""What the targets of the release call, and how."""


@pytest.mark.program("make")
def test_what_is_pushed_is_signed_by_its_digest(tmp_path):
    """The image and the chart are signed by the digests that docker and helm tell."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = version["optional-dependencies"]["demo"][0].partition("==")[2]
    digest = "0123456789abcdef" * 4
    (tmp_path / "bin").mkdir()
    (tmp_path / "kmproxy").mkdir()
    (tmp_path / "kmproxy/__init__.py").write_text(f'__version__ = "{version}"\n')
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text("utf-8"), "utf-8")
    says = {
        "docker": f"""printf '{{\\n  "containerimage.digest": "sha256:{digest}"\\n}}' >dist/image.json""",
        "helm": f"echo 'Pushed: x'; echo 'Digest: sha256:{digest}' >&2",
        "cosign": ":",
    }
    for name, script in says.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n{script}\n')
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "IMG": "r.example.com:5000/a/kmproxy:9",
        "CHARTS": "r.example.com/charts",
        "REVISION": "abc",
        "CREATED": "now",
    }
    for target in ("image-push", "image-sign", "chart-push"):
        subprocess.run(
            ["make", target], cwd=tmp_path, env=environment, check=True, capture_output=True
        )
    called = (tmp_path / "called").read_text("utf-8").splitlines()
    expected = {
        line.format(version=version, digest=digest) for lines in CALLED.values() for line in lines
    }
    assert {*called} == expected
    (tmp_path / "dist/image.json").write_text("{}")
    failed = subprocess.run(
        ["make", "image-sign"], cwd=tmp_path, env=environment, check=False, capture_output=True
    )
    assert failed.returncode != 0
    assert (tmp_path / "called").read_text("utf-8").splitlines() == called
