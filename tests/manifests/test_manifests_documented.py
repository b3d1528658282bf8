"""The manifests in the documents: every overlay is named, and every example builds and is taken."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from tests.support.documents import PAGES, block, section
from tests.support.manifests import by_name
from tests.support.overlays import COMPONENTS, MANIFESTS, OVERLAYS, built


def test_the_documents_name_every_overlay_and_component():
    """Each has its row, and no other has."""
    for title, names in (("Overlays", OVERLAYS), ("Components", COMPONENTS)):
        table = section("docs/install.md", title)
        assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(names)


@pytest.mark.program("kubectl")
def test_the_example_of_a_component(tmp_path):
    """The kustomization that is shown builds beside our manifests."""
    example = block("apiVersion: kustomize")
    (tmp_path / "manifests").symlink_to(MANIFESTS)
    (tmp_path / "kustomization.yaml").write_text(example)
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, check=True)
    shown = by_name(yaml.safe_load_all(done.stdout))
    assert shown == by_name(built("daemonset", ["kubelet-certificates"]))


@pytest.mark.program("kubectl", "openssl")
def test_the_example_of_a_certificate(tmp_path):
    """What is shown makes a Secret whose certificate names the Service, and verifies itself."""
    commands = block("openssl req ")
    commands = commands.rstrip("\n") + " --dry-run=client --output=yaml"
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    secret = yaml.safe_load(done.stdout)
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (
        "kmproxy-tls",
        "kmproxy-system",
    )
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    verify = ["openssl", "verify", "-CAfile", "tls.crt"]
    name = ["-verify_hostname", "kmproxy.kmproxy-system.svc"]
    subprocess.run([*verify, *name, "tls.crt"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.program("kubectl")
def test_the_example_of_the_ca(tmp_path):
    """The CA alone goes to Prometheus' namespace, as it is in the Secret; the key stays.

    There is no cluster here, so the Secret comes from a file.
    """
    pem = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
    data = {"ca.crt": pem, "tls.crt": pem, "tls.key": "the key"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kmproxy-tls"},
              "data": {key: b64encode(value.encode()).decode() for key, value in data.items()}}  # fmt: skip
    (tmp_path / "secret.json").write_text(json.dumps(secret))
    first, second = block("kubectl get secret kmproxy-tls ").splitlines()
    start = "kubectl get secret kmproxy-tls --namespace=kmproxy-system "
    assert first.startswith(start)
    local = "kubectl annotate --local --filename=secret.json a=b "
    commands = f"{local}{first.removeprefix(start)}\n{second} --dry-run=client --output=yaml"
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    created = yaml.safe_load(done.stdout)
    assert (created["kind"], created["metadata"]["namespace"]) == ("ConfigMap", "monitoring")
    assert created["data"] == {"ca.crt": pem}
    lines = re.search(r"ca_file: (\S+) # of the ConfigMap (\S+),", PAGES["docs/prometheus.md"])
    assert (Path(lines[1]).name, lines[2]) == ("ca.crt", created["metadata"]["name"])
