"""Make and CI: accepted Pythons, the contents of locks, and the pinned base image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kmproxy
from tests.support.programs import faulty_python

ROOT = Path(kmproxy.__file__).parents[1]
DIGEST = "sha256:" + "0123456789abcdef" * 4
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def make(*arguments, directory=ROOT, **environment):
    """Exit status, output and standard error of make."""
    done = subprocess.run(
        ["make", *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("target", ["run", "test", "lint"])
def test_a_faulty_python(target, tmp_path):
    """It is refused before any setup, with the reason and the remedy."""
    if (found := faulty_python()) is None:
        pytest.skip("no Python 3.11 before 3.11.5 on this machine")
    path, version = found
    status, out, err = make(target, f"PYTHON={path}", f"VENV={tmp_path / 'venv'}")
    assert (status, out) == (2, "")
    assert f"{path} is Python {version}, and kmproxy needs 3.11.5 or newer" in err
    assert "cpython gh-106052" in err
    assert f"make {target} PYTHON=/path/to/python3.13" in err
    assert not (tmp_path / "venv").exists()


def test_no_python(tmp_path):
    """The message asks for the same."""
    status, out, err = make("run", "PYTHON=python0", f"VENV={tmp_path / 'venv'}")
    assert (status, out) == (2, "")
    assert "There is no python0, and kmproxy needs Python 3.11.5 or newer" in err
    assert "make run PYTHON=/path/to/python3.13" in err


def test_setting_up_is_told(tmp_path):
    """Each slow step first says what it does."""
    _, shown, _ = make("-n", "test", f"VENV={tmp_path / 'venv'}")
    told = [line for line in shown.splitlines() if line.startswith("echo ")]
    assert len(told) == shown.count("--require-hashes") == 2


def test_the_pythons_of_ci(tmp_path):
    """The supported versions, oldest first, each once, without faulty or missing ones."""
    (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3.11").chmod(0o755)
    (tmp_path / "python3.12").symlink_to(sys._base_executable)
    (tmp_path / "python3.13").symlink_to(sys._base_executable)
    if (found := faulty_python()) is not None:
        (tmp_path / "python3").symlink_to(found[0])
    for tool in ("bash", "dirname", "ls", "sort", "awk"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    listed = subprocess.run(
        [ROOT / ".ci" / "pythons"],
        env={"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [".".join(map(str, sys.version_info[:3]))]


def locked(path):
    """The packages of a lock, each with its extras."""
    pins = re.findall(r"^([\w.-]+)(?:\[([\w,.-]+)\])?==", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): set(filter(None, extras.split(","))) for name, extras in pins}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_locks_hold_the_extras(lock):
    """A pip before 23.3 needs the extra in the lock, or takes another package."""
    packages = locked(lock)
    assert packages
    lacking = []
    for name in packages:
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another Python or another platform
        for each in map(Requirement, wanted):
            applies = each.marker is None or each.marker.evaluate({"extra": ""})
            extras = packages.get(canonicalize_name(each.name), set())
            if applies and not each.extras <= extras:
                lacking.append(f"{name}: {each}")
    assert lacking == []


def test_no_rust(tmp_path):
    """The compiled engine is not built, and the message says that it is optional."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "kmproxy").touch()
    for name in ("sh", "env", "make"):
        (tmp_path / name).symlink_to(shutil.which(name))
    status, out, err = make("engine", f"VENV={venv}", PATH=str(tmp_path))
    assert (status, out) == (2, "")
    assert "There is no cargo. The compiled engine needs Rust 1.88 or newer" in err
    assert "Without it kmproxy uses the pure engine" in err
    manifest = (ROOT / "engine" / "Cargo.toml").read_text("utf-8")
    assert 'rust-version = "1.88"' in manifest


def test_one_interface_of_the_compiled_engine():
    """The crate, kmproxy and the extra name the same one."""
    interfaces = [
        int(re.search(pattern, (ROOT / file).read_text("utf-8"), re.MULTILINE)[1])
        for file, pattern in (
            ("engine/src/lib.rs", r"^const INTERFACE: u32 = (\d+);"),
            ("engine/Cargo.toml", r'^version = "(\d+)\.'),
            ("kmproxy/exposition/engine.py", r"^INTERFACE = (\d+)$"),
            ("pyproject.toml", r'"kmproxy-engine>=(\d+),'),
        )
    ]
    assert len(set(interfaces)) == 1, interfaces


def dockerfile(directory):
    """The base images of the one Dockerfile: of what runs, and of the compiled engine's build."""
    text = (directory / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"^ARG (?:BASE|RUST)=(\S+)$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}", "${RUST}"}
    assert text.rpartition("\nFROM ")[2].startswith("${BASE}\n")
    return bases


def test_the_bases_are_pinned():
    """The base images are pinned by the digests of their content, with the same Debian."""
    python, rust = dockerfile(ROOT)
    assert re.fullmatch(r"python:3\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", python)
    assert re.fullmatch(r"rust:1\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", rust)


@pytest.mark.parametrize(
    ("answer", "status", "digest"), [(DIGEST, 0, DIGEST), ("", 2, None), ("sha256:12", 2, None)]
)
def test_the_bases_are_renewed(answer, status, digest, tmp_path):
    """The tags stay, and an invalid digest changes nothing."""
    for name in ("Makefile", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path)
    bases = dockerfile(tmp_path)
    tags = [base.partition("@")[0] for base in bases]
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho {answer}\n')
    docker.chmod(0o755)
    path = f"{docker.parent}:{os.environ['PATH']}"
    assert make("image-base", directory=tmp_path, PATH=path)[0] == status
    asked = (tmp_path / "asked").read_text("utf-8").splitlines()
    inspect = [f"buildx imagetools inspect {tag} --format {{{{.Manifest.Digest}}}}" for tag in tags]
    assert asked == (inspect if digest else inspect[:1])
    assert dockerfile(tmp_path) == ([f"{tag}@{digest}" for tag in tags] if digest else bases)
