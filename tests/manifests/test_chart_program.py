"""The program `helm`, of Helm 3, reads the chart as Helm's own engine of the package does.

`make helm-tool` builds the program.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.charts import CHART, CI, ci_values, helm, refusal, rendered
from tests.support.programs import which
from tests.support.yaml_text import read_all

pytestmark = [helm, pytest.mark.program("helm")]

KUBERNETES = "1.36.0"


def ran(*arguments):
    """The status of the program, and what it prints to both outputs."""
    command = [which("helm"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def templated(chart, *arguments):
    """The objects that `helm template` prints, and the pods of `helm test`."""
    release = ("kmproxy", chart, "--namespace=kmproxy-system", f"--kube-version={KUBERNETES}")
    status, out, err = ran("template", *release, *arguments)
    assert status == 0, err
    return read_all(out)


def as_text(objects):
    """Objects as text, in one order."""
    return sorted(json.dumps(one, sort_keys=True) for one in objects)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The packaged chart, by `helm package`."""
    folder = tmp_path_factory.mktemp("package")
    status, _, err = ran("package", CHART, f"--destination={folder}")
    assert status == 0, err
    (path,) = folder.glob("*.tgz")
    return path


@pytest.mark.parametrize("way", CI)
def test_the_package_renders_the_same(package, way):
    """Each file of values: the strict lint finds nothing, and both engines make the same objects."""
    values = f"--values={CHART / f'ci/{way}-values.yaml'}"
    status, out, err = ran("lint", "--strict", CHART, values, f"--kube-version={KUBERNETES}")
    assert (status, "0 chart(s) failed" in out) == (0, True), out + err
    given = ci_values(way)
    expected = [*rendered(given), *rendered(given, tests=True)]
    assert as_text(templated(package, values)) == as_text(expected)


@pytest.mark.parametrize(
    ("given", "values"),
    [("--set=mode=none", {"mode": "none"}), ("--set=mode=sidecar", {"mode": "sidecar"})],
    ids=["a contradiction", "the schema"],
)
def test_what_is_refused(package, given, values):
    """With status 1, and with the line of the chart; the schema in words of its own."""
    status, _, err = ran("template", package, given, f"--kube-version={KUBERNETES}")
    assert status == 1
    said = refusal(values)
    assert said
    assert said.rpartition("): ")[2] in err or "specifications of the schema" in err


def test_an_old_cluster_is_refused(package):
    """The chart names the oldest Kubernetes that kmproxy supports."""
    status, _, err = ran("template", package, "--kube-version=1.30.0")
    assert status == 1
    assert "requires kubeVersion: >=1.31.0-0" in err
