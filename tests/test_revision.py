"""The revision of a checkout, which `kmproxy --version` shows."""

import shutil
import subprocess

import pytest

from kmproxy.revision import checkout_revision

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    """The output of git in a folder."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package in a checkout with one commit, from which the module is run."""
    folder = tmp_path / "kmproxy"
    folder.mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (folder / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    git(tmp_path, "tag", "-m", "x", "v9.9.9")
    monkeypatch.setattr("kmproxy.revision.__file__", str(folder / "revision.py"))
    return folder


def test_the_commit_of_a_checkout(package, monkeypatch):
    """The commit's hash, whatever tags there are, and whether files differ from it."""
    commit = git(package, "rev-parse", "HEAD")[:12]
    assert checkout_revision() == commit
    (package / "__init__.py").write_text("changed")
    assert checkout_revision() == f"{commit}-dirty"
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert checkout_revision() == f"{commit}-dirty"


def test_what_is_no_checkout(package, monkeypatch):
    """Without git, without commits, or inside another work tree there is no revision."""
    inside = package / "lib"
    inside.mkdir()
    monkeypatch.setattr("kmproxy.revision.__file__", str(inside / "kmproxy" / "revision.py"))
    assert checkout_revision() == ""
    monkeypatch.setattr("kmproxy.revision.__file__", str(package / "revision.py"))
    monkeypatch.setenv("PATH", str(inside))
    assert checkout_revision() == ""
    monkeypatch.undo()
    shutil.rmtree(package.parent / ".git")
    git(package.parent, "init", "-q")
    monkeypatch.setattr("kmproxy.revision.__file__", str(package / "revision.py"))
    assert checkout_revision() == ""
