"""Scrapes over TLS with a client certificate, with basic auth, and with reviewed tokens."""

from __future__ import annotations

import copy
import re

import pytest

from tests.support.documents import block
from tests.support.programs import eventually
from tests.support.stage import PROMETHEUS
from tests.support.tls import HASHES, Authority, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOB = "kubernetes-cadvisor"
MEMORY = "container_memory_working_set_bytes"


async def scraped(stage, allowed, refused, why):
    """Let Prometheus scrape with `allowed` in its job; a second job, with `refused`, may not.

    `why` matches what Prometheus says of each target of the second; where the handshake fails that
    is, in one of many ways, that there was no answer.
    """
    config = stage.shipped("central")
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == JOB]
    config["scrape_configs"] = [
        job | allowed,
        copy.deepcopy(job) | refused | {"job_name": "refused"},
    ]
    prometheus = await stage.prometheus(config)
    await prometheus.up(JOB, 2)

    async def stored():
        found = await prometheus.query(f'{MEMORY}{{namespace="payments",container!=""}}')
        assert {labels["team"] for labels, _ in found} == {"payments"}
        assert {labels["kubernetes_io_hostname"] for labels, _ in found} == {"node-a", "node-b"}
        assert [value for _, value in await prometheus.query('up{job="refused"}')] == [0, 0]

    async def told():
        targets = (await prometheus.api("targets", state="active"))["activeTargets"]
        errors = [each["lastError"] for each in targets if each["scrapePool"] == "refused"]
        assert len(errors) == 2
        assert all(re.search(why, error) for error in errors), errors

    await eventually(stored)
    await eventually(told)
    assert await prometheus.query(f'{MEMORY}{{job="refused"}}') == []


async def test_a_client_certificate(stage, tmp_path):
    """Over TLS, only a client with a certificate of the right authority is served."""
    authority, stranger = Authority(), Authority()
    directory = tmp_path / "tls"
    authority.write_pair(directory, host="127.1.0.1")
    authority.write_pair(directory, "prometheus", "prometheus.example")
    stranger.write_pair(directory, "stranger", "prometheus.example")
    (directory / "ca.crt").write_bytes(authority.pem)
    tls = {"cert_file": "tls.crt", "key_file": "tls.key", "client_ca_file": "ca.crt"}
    tls |= {"client_auth_type": "RequireAndVerifyClientCert"}
    web = write_config(directory / "web.yml", {"tls_server_config": tls})
    await stage.deploy("deployment-direct", f"--web-config-file={web}")

    def shows(name):
        files = {"cert_file": f"{directory}/{name}.crt", "key_file": f"{directory}/{name}.key"}
        return {"scheme": "https", "tls_config": {"ca_file": f"{directory}/ca.crt", **files}}

    await scraped(stage, shows("prometheus"), shows("stranger"), '^Get "https')


async def test_basic_auth(stage, tmp_path):
    """A user's password is accepted, another password is not."""
    authority = Authority()
    authority.write_pair(tmp_path / "tls", host="127.1.0.1")
    (tmp_path / "tls" / "ca.crt").write_bytes(authority.pem)
    document = {
        "tls_server_config": {"cert_file": "tls.crt", "key_file": "tls.key"},
        "basic_auth_users": {"alice": HASHES["alice"]},
    }
    web = write_config(tmp_path / "tls" / "web.yml", document)
    await stage.deploy("deployment-direct", f"--web-config-file={web}")

    def knows(password):
        trust = {"scheme": "https", "tls_config": {"ca_file": f"{tmp_path}/tls/ca.crt"}}
        return trust | {"basic_auth": {"username": "alice", "password": password}}

    await scraped(stage, knows("alice"), knows("bob"), "401")


async def test_the_web_config_of_the_documents(stage, tmp_path):
    """As documented: a certificate with the name and a password; without the name, nothing."""
    authority = Authority()
    authority.write_pair(tmp_path, host="127.1.0.1")
    authority.write_pair(tmp_path, "named", "prometheus.example.com")
    authority.write_pair(tmp_path, "other", "other.example.com")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "web.yml").write_text(block("tls_server_config:"), "utf-8")
    await stage.deploy("deployment-direct", f"--web-config-file={tmp_path}/web.yml")

    def shows(name):
        files = {"cert_file": f"{tmp_path}/{name}.crt", "key_file": f"{tmp_path}/{name}.key"}
        return {
            "scheme": "https",
            "tls_config": {"ca_file": f"{tmp_path}/ca.crt", **files},
            "basic_auth": {"username": "prometheus", "password": "example"},
        }

    await scraped(stage, shows("named"), shows("other"), '^Get "https|403')


async def test_a_token_that_is_reviewed(stage, tmp_path):
    """By TokenReview and SubjectAccessReview, with the component's roles and flag."""
    authority = stage.cluster.authority
    await stage.deploy("deployment-direct", components=["authorization"])
    (tmp_path / "token").write_text(authority.issue(PROMETHEUS))
    (tmp_path / "other").write_text(authority.issue("system:serviceaccount:shop:web"))

    def bears(name):
        return {"authorization": {"credentials_file": str(tmp_path / name)}}

    await scraped(stage, bears("token"), bears("other"), "403")
    reviews = {each.path for each in stage.cluster.api.requests if each.method == "POST"}
    assert reviews >= {
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    }
