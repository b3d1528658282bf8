"""The wheels: kmproxy has what a daemon uses, kmproxy-demo the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes

import pytest

from kmproxy import __version__
from tests.support.documents import ROOT
from tests.support.modules import MODULES, ours

pytest.importorskip("hatchling", reason="hatchling, which builds the wheels, is not installed")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The two wheels, each as its names, its metadata and a folder with its files."""
    folder = tmp_path_factory.mktemp("wheels")
    made = {}
    for name, source in (("kmproxy", ROOT), ("kmproxy_demo", ROOT / "demo")):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=source, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with zipfile.ZipFile(folder / f"{name}-{__version__}-py3-none-any.whl") as wheel:
            wheel.extractall(folder / name)
            about = message_from_bytes(wheel.read(f"{name}-{__version__}.dist-info/METADATA"))
            made[name] = set(wheel.namelist()), about, folder / name
    return made


def modules(names):
    """The modules of kmproxy among the names in a wheel."""
    return {
        re.sub(r"\.py$", "", name).removeprefix("kmproxy/").replace("/", ".")
        for name in names
        if name.endswith(".py")
    }


def run(*arguments, wheels):
    """Exit status, output and standard error of Python that sees only these wheels of ours."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(each[2]) for each in wheels)},
        cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_each_module_is_in_one_wheel(wheels):
    """The simulator, the demo and the bench are in kmproxy-demo, and nothing else is."""
    (plain, _, _), (demo, _, _) = wheels.values()
    assert modules(plain) | modules(demo) == set(MODULES)
    assert plain & demo == set()
    assert {name.split(".")[0] for name in modules(demo)} == {
        *("simulator", "bench", "demo"),
        *("supervisor", "daemon_process"),
    }
    assert {"kmproxy/py.typed", f"kmproxy-{__version__}.dist-info/licenses/LICENSE"} <= plain


def test_the_wheel_does_without_the_other(wheels):
    """Only the two commands import from kmproxy-demo."""
    plain, demo = (modules(names) for names, _, _ in wheels.values())
    found = {name: sorted(ours(name) & demo) for name in plain if ours(name) & demo}
    assert found == {"cli.main": ["bench.run", "demo"]}


def test_a_command_that_is_not_there(wheels):
    """One line says what to install, and what is missing."""
    plain, _ = wheels.values()
    code = "import kmproxy.cli.main as m, sys; print(m.__file__); sys.exit(m.main(sys.argv[1:]))"
    for command, module in (("demo", "kmproxy.demo"), ("bench", "kmproxy.bench")):
        status, out, err = run("-c", code, command, wheels=[plain])
        assert (status, out) == (1, f"{plain[2]}/kmproxy/cli/main.py\n")
        assert err == (
            f"kmproxy: kmproxy {command} is not part of this installation ({module} is missing): "
            f"pip install 'kmproxy[demo]=={__version__}'\n"
        )


def test_both_together(tmp_path, wheels):
    """The wheels are installed into one folder, and the demo and the bench are then there."""
    plain, demo = wheels.values()
    for _, _, folder in (plain, demo):
        subprocess.run(["cp", "-r", f"{folder}/kmproxy", tmp_path], check=True)
    code = "import kmproxy.demo as d, kmproxy.bench.run as b; print(d.__file__, b.__file__)"
    status, out, err = run("-c", code, wheels=[(0, 0, tmp_path)])
    assert (status, err) == (0, "")
    assert out == f"{tmp_path}/kmproxy/demo.py {tmp_path}/kmproxy/bench/run.py\n"


def test_what_the_wheels_ask_for(wheels):
    """The extra `demo` is the other wheel of the same version, which brings trustme."""
    plain, demo = (about for _, about, _ in wheels.values())
    assert f"kmproxy-demo=={__version__}; extra == 'demo'" in plain.get_all("Requires-Dist")
    assert not [each for each in plain.get_all("Requires-Dist") if each.startswith("trustme")]
    (group,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"][
        "demo"
    ]
    names = [re.split(r"[<>=]", each)[0] for each in demo.get_all("Requires-Dist")]
    assert f"kmproxy=={__version__}" in demo.get_all("Requires-Dist")
    assert names == ["kmproxy", group.partition(">")[0]]
    urls = dict(each.split(", ") for each in plain.get_all("Project-URL"))
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= urls.keys()


def test_the_image_has_none_of_it():
    """The image installs the one wheel, and a lock without trustme."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.findall(r"requirements[\w-]*\.lock", dockerfile.partition("\nFROM ${BASE}\n")[0]) == [
        *("requirements.lock", "requirements-build.lock"),
        *("requirements-build.lock", "requirements.lock"),
    ]
    assert "trustme" not in (ROOT / "requirements.lock").read_text("utf-8")
    assert "demo" not in dockerfile
    assert "demo" not in (ROOT / ".dockerignore").read_text("utf-8")
