"""`make release` and `make version`: what a release is, and how a version is written."""

import shutil
import subprocess

import pytest

from kmproxy import __version__
from tests.support.documents import ROOT
from tests.support.release import fragments, main, notes, places, problems, section, write_version

FILES = (
    *("kmproxy/__init__.py", "pyproject.toml", "demo/pyproject.toml", "CHANGELOG.md", "README.md"),
    *("docs/install.md", "manifests/chart/Chart.yaml", "changelog.d", "manifests/central"),
)


@pytest.fixture
def tree(tmp_path):
    """A copy of the files with a version, outside of git, with two fragments."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for path in (tmp_path / "changelog.d").glob("*.*.md"):
        path.unlink()
    (tmp_path / "changelog.d/a-path.breaking.md").write_text("A path is gone.\n")
    (tmp_path / "changelog.d/a-flag.added.md").write_text("A flag.\nIt does this.\n")
    return tmp_path


@pytest.fixture
def released(tree):
    """A tree that was released as 9.0.0."""
    write_version(tree, "9.0.0", "2030-01-02")
    return tree


def git(folder, *arguments):
    """Runs git in a folder."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def replaced(path, old, new):
    """Replaces a text once in a file that has it."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_the_versions_of_this_tree_agree():
    """In each place there is one, of the package."""
    found = [(str(path.relative_to(ROOT)), match[1]) for path, match, _ in places(ROOT)]
    assert {version for _, version in found} == {__version__}
    assert {name for name, _ in found} >= {
        *("manifests/chart/Chart.yaml", "manifests/central/deployment.yaml"),
        *("manifests/logs/daemonset.yaml", "manifests/logs-api/statefulset.yaml"),
        *("manifests/overlays/daemonset/daemonset.yaml", "demo/pyproject.toml", "docs/install.md"),
    }
    assert [
        each for each in problems(ROOT) if not each.startswith(("CHANGELOG", "changelog", "git"))
    ] == []


def test_the_fragments_of_this_tree():
    """Each has a kind, and is in the news."""
    news = section(ROOT)
    for paths in fragments(ROOT).values():
        for path in paths:
            assert path.read_text("utf-8").split("\n")[0] in news


def test_a_version_is_written(tree, capsys):
    """Everywhere at once, with the fragments by kind. The result is a release."""
    before = (tree / "CHANGELOG.md").read_text("utf-8").partition("## ")
    assert main(["write", f"--root={tree}", "--version=9.0.0", "--date=2030-01-02"]) == 0
    text = (tree / "CHANGELOG.md").read_text("utf-8")
    news = "### Breaking\n\n- A path is gone.\n\n### Added\n\n- A flag.\n  It does this.\n\n"
    assert text == f"{before[0]}## 9.0.0 - 2030-01-02\n\n{news}{before[1]}{before[2]}"
    assert [path.name for path in (tree / "changelog.d").iterdir()] == ["README.md"]
    assert {match[1] for _, match, _ in places(tree)} == {"9.0.0"}
    assert main(["check", f"--root={tree}", "--tag=v9.0.0"]) == 0
    assert capsys.readouterr() == (f"{tree} is a release\n", "")


def test_a_section_that_was_begun(tree):
    """A section that is not released yet keeps its text, and gets the date and the fragments."""
    (tree / "CHANGELOG.md").write_text(
        "# C\n\n## 9.0.0 - not released yet\n\nText.\n\n## 8.0.0 - 2029-01-02\n\nOld.\n"
    )
    write_version(tree, "9.0.0", "2030-01-02")
    text = (tree / "CHANGELOG.md").read_text("utf-8")
    assert text.startswith("# C\n\n## 9.0.0 - 2030-01-02\n\nText.\n\n### Breaking\n\n- ")
    assert text.endswith("\n\n## 8.0.0 - 2029-01-02\n\nOld.\n")
    assert problems(tree) == []
    assert notes(tree).startswith("Text.\n\n### Breaking\n\n- ")
    assert "Old." not in notes(tree)
    write_version(tree, "9.0.1", "2030-01-03")
    replaced(tree / "CHANGELOG.md", "## 9.0.1", "## 9.0.2")
    with pytest.raises(ValueError, match=r"CHANGELOG.md: there is no section of 9\.0\.1"):
        notes(tree)


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("manifests/chart/Chart.yaml", "\nversion: 9.0.0", "\nversion: 9.0.1",
         "manifests/chart/Chart.yaml:5: 9.0.1, but kmproxy/__init__.py has 9.0.0"),
        ("manifests/chart/Chart.yaml", 'appVersion: "9.0.0"', 'appVersion: "8.0.0"',
         "manifests/chart/Chart.yaml:6: 8.0.0, but kmproxy/__init__.py has 9.0.0"),
        ("manifests/chart/Chart.yaml", 'appVersion: "9.0.0"', "appVersion: 9",
         'manifests/chart/Chart.yaml: the version is not found: ^appVersion: "'),
        ("manifests/central/deployment.yaml", "image: kmproxy:9.0.0", "image: kmproxy:8.0.0",
         "manifests/central/deployment.yaml:62: 8.0.0, but"),
        ("manifests/central/deployment.yaml", "image: kmproxy:9.0.0", "image: kmproxy:latest",
         "manifests/central/deployment.yaml: the image has no version"),
        ("demo/pyproject.toml", "kmproxy==9.0.0", "kmproxy==8.0.0", "demo/pyproject.toml:22: 8.0.0, but"),
        ("docs/install.md", "kmproxy:9.0.0", "kmproxy:8.0.0", "docs/install.md:7: 8.0.0, but"),
        ("CHANGELOG.md", "2030-01-02", "not released yet", "CHANGELOG.md: begins with '9.0.0 - not rel"),
        ("CHANGELOG.md", "## 9.0.0", "## 9.0.1", "CHANGELOG.md: begins with '9.0.1 - 2030-01-02'"),
        ("changelog.d/x.added.md", None, "X", "changelog.d: 1 fragments are not in CHANGELOG.md"),
        ("changelog.d/x.add.md", None, "X", "changelog.d/x.add.md: the kinds are breaking, "),
    ],
)  # fmt: skip
def test_what_is_no_release(released, capsys, name, old, new, problem):
    """One line names the file, and exit status is 1."""
    if old is None:
        (released / name).write_text(new)
    else:
        replaced(released / name, old, new)
    assert main(["check", f"--root={released}"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith(problem) for line in lines), lines
    assert len(lines) <= 2


def test_what_git_says(released):
    """A release is committed, and its tag is on no other commit."""
    assert problems(released, "v8.0.0") == ["the tag is v8.0.0, but kmproxy/__init__.py has 9.0.0"]
    git(released, "init", "-q")
    git(released, "add", ".")
    git(released, "commit", "-qm", "x")
    git(released, "tag", "-m", "x", "v9.0.0")
    assert problems(released, "v9.0.0") == []
    (released / "new").write_text("")
    assert problems(released) == ["git: there are changes that are not committed"]
    git(released, "add", ".")
    git(released, "commit", "-qm", "y")
    (problem,) = problems(released)
    assert problem.startswith("git: the tag v9.0.0 is on another commit, ")


@pytest.mark.parametrize("version", ["", "1", "v1.0.0", "1.0.0-dev", "9.0.0"])
def test_a_version_that_is_refused(released, capsys, version):
    """One that is none, or has been released, changes nothing."""
    before = (released / "CHANGELOG.md").read_text("utf-8")
    assert main(["write", f"--root={released}", f"--version={version}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (released / "CHANGELOG.md").read_text("utf-8") == before
