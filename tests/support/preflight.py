"""The preflight in front of a simulated cluster."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import yaml

from kmproxy.check.preflight import check
from kmproxy.cli.read import read_config


class Preflight:
    """The flags and the environment of a pod in the cluster, and runs of the check with them."""

    def __init__(self, cluster, directory):
        self.cluster = cluster
        self.directory = directory
        cluster.write_service_account(directory)

    def flags(self, *more):
        """Those of a pod on node-a."""
        kubelet = self.cluster.kubelets["node-a"]
        return [
            f"--service-account-dir={self.directory}",
            f"--node-name-or-ip={kubelet.host}",
            f"--node-port={kubelet.port}",
            *more,
        ]

    @property
    def environment(self):
        api = urlsplit(self.cluster.api.url)
        return {
            "KUBERNETES_SERVICE_HOST": api.hostname,
            "KUBERNETES_SERVICE_PORT": str(api.port),
        }

    async def run(self, *more, seconds=10.0):
        """Run it here: the report, and the text that came while it ran."""
        config, warnings = read_config(self.flags(*more))
        lines = []
        report = await check(
            config,
            warnings,
            self.environment,
            announce=lines.append,
            show=lines.append,
            step_timeout=seconds,
        )
        json.dumps(report.document())
        shown = "\n".join([*lines, report.table()])
        assert self.cluster.token not in shown + json.dumps(report.document())
        return report, shown

    async def process(self, *more, **environment):
        """Run it as a command: status, standard output, standard error."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kmproxy", "check", *self.flags(*more),
            env=bare | self.environment | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert self.cluster.token.encode() not in out + err
        return process.returncode, out.decode(), err.decode()


SURPLUS = (("get", "nodes/proxy"), ("get", "nodes"))


def results(report, *, but=()):
    """The result of every row by its subject, without those that are `but`."""
    return {row.subject: row.result for row in report.findings if row.result not in but}


def message(report, subject):
    """What a row says."""
    (found,) = [row.message for row in report.findings if row.subject == subject]
    return found


def to_add(shown):
    """The rules that the text says are to be added."""
    return yaml.safe_load(shown.partition("of this identity:\n")[2])


def row(report, check):
    """The row of a check: its result and its message; None where there is none."""
    found = [(each.result, each.message) for each in report.findings if each.check == check]
    return found[0] if found else None
