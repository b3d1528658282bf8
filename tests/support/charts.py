"""The chart, rendered by Helm's own engine.

The engine is a library of Go. It runs in a process of its own, so that its threads and its memory
are not those of the tests.
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.overlays import MANIFESTS
from tests.support.yaml_text import read, read_all

CHART = MANIFESTS / "chart"
CI = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*-values.yaml"))
"""The supported ways of running, each with a file of values."""

METRICS = [
    name for name in CI if "mode: none" not in (CHART / f"ci/{name}-values.yaml").read_text()
]
"""Those that serve metrics."""

LOGS = [name for name in CI if "\nlogs:\n" in (CHART / f"ci/{name}-values.yaml").read_text()]
"""Those that send logs."""

NOTES = "NOTES.txt"


class ChartError(Exception):
    """The chart cannot be rendered with these values. The text says why."""


helm = pytest.mark.skipif(
    find_spec("helm_python") is None,
    reason="helm-python-sdk is not installed: it is for Linux with glibc 2.28 or newer",
)
"""A test that is skipped where Helm's engine has no wheel."""


def ci_values(name):
    """The values of a file in ci/."""
    return read((CHART / f"ci/{name}-values.yaml").read_text("utf-8"))


def texts(values, *, name="kmproxy", namespace="kmproxy-system"):
    """The rendered templates, by their path in templates/. Raises ChartError."""
    return dict(_texts(json.dumps(values, sort_keys=True), name, namespace))


def rendered(values, *, tests=False, **release):
    """The objects of a release, without those of `helm test` unless they alone are wanted."""
    objects = [
        one
        for path, text in texts(values, **release).items()
        if path != NOTES and not path.startswith("_")
        for one in read_all(text)
    ]
    return [one for one in objects if is_hook(one) is tests]


def parts(values, **release):
    """The objects for metrics, and those for logs. Neither has the namespace."""
    objects = [one for one in rendered(values, **release) if one["kind"] != "Namespace"]
    logs = [
        one for one in objects if "-logs" in one["metadata"]["labels"]["app.kubernetes.io/name"]
    ]
    return [one for one in objects if one not in logs], logs


def check_pod(values, *arguments):
    """The pod of `helm test` that runs `kmproxy check` with these arguments."""
    checks = rendered(values, tests=True)
    (found,) = [one for one in checks if one["spec"]["containers"][0]["args"] == ["check", *arguments]]  # fmt: skip
    return found


def is_hook(one):
    """Whether an object is for `helm test`, and no part of the release."""
    return "helm.sh/hook" in one["metadata"].get("annotations", {})


def refusal(values):
    """The text with which Helm refuses values, or an empty one."""
    try:
        texts(values)
    except ChartError as error:
        return str(error)
    return ""


def linted(values, version):
    """The findings of `helm lint --strict` with a version of Kubernetes."""
    report = _engine().submit(_lint, CHART, values, version).result(120)
    return report["errors"] + [each["error"] for each in report["messages"] if each["severity"] > 1]


def packaged(folder):
    """The path of the packaged chart, and the rendered templates of the archive."""
    return _engine().submit(_package, CHART, folder).result(120)


def release(cluster, action, name, *arguments, **options):
    """Runs the action of `helm install`, `upgrade` or `uninstall` in a cluster.

    `cluster` holds the arguments of `helm_python.Config`. Raises ChartError.
    """
    call = (cluster, action, name, arguments, options)
    found, error = _engine().submit(_release, CHART, *call).result(120)
    if error:
        raise ChartError(error)
    return found


@cache
def _engine():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@cache
def _texts(values, name, namespace):
    found, error = _engine().submit(_render, CHART, json.loads(values), name, namespace).result(120)
    if error:
        raise ChartError(error)
    return tuple(found.items())


def _render(folder, values, name, namespace):
    import helm_python  # noqa: PLC0415 - in the engine's process alone

    chart = helm_python.Chart.load(folder)
    try:
        found = chart.render(values, name=name, namespace=namespace)
    except helm_python.HelmError as error:
        return {}, str(error)
    return {path.split("/templates/")[1]: text for path, text in found.items()}, ""


def _lint(folder, values, version):
    import helm_python  # noqa: PLC0415 - in the engine's process alone

    return helm_python.lint(folder, values, strict=True, kube_version=f"v{version}.0")


def _package(folder, destination):
    import helm_python  # noqa: PLC0415 - in the engine's process alone

    path = helm_python.package(folder, destination=destination)
    chart = helm_python.Chart.load_archive(Path(path).read_bytes())
    found = chart.render({}, name="kmproxy", namespace="kmproxy-system")
    return path, {each.split("/templates/")[1]: text for each, text in found.items()}


def _release(folder, cluster, action, name, arguments, options):
    import helm_python  # noqa: PLC0415 - in the engine's process alone

    config = helm_python.Config(**cluster)
    try:
        if action == "uninstall":
            return config.uninstall(name), ""
        return getattr(config, action)(str(folder), name, *arguments, **options), ""
    except helm_python.HelmError as error:
        return None, str(error)
    finally:
        config.close()
