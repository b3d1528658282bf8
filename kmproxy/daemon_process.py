"""The daemon as a process of its own, in front of a simulated cluster: its command, its memory.

Knows the environment and the flags of a daemon in a pod. Must not start or stop processes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class SimulatedPod:
    """A pod of the daemon: the URL of the API server, the folder of the account, the kubelet."""

    api: str
    account: Path
    kubelet_host: str
    kubelet_port: int

    @property
    def command(self) -> list[str]:
        """The command that runs the daemon for all nodes. More flags may follow it."""
        return [*self._of("serve"), "--all-nodes"]

    @property
    def logs_command(self) -> list[str]:
        """The command that ships the logs of the kubelet's node. More flags must follow it."""
        return self._of("logs")

    def _of(self, name: str) -> list[str]:
        return [
            *(sys.executable, "-m", "kmproxy", name),
            f"--service-account-dir={self.account}",
            f"--node-name-or-ip={self.kubelet_host}",
            f"--node-port={self.kubelet_port}",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process, with the variables that name the API server."""
        api = urlsplit(self.api)
        return {
            **os.environ,
            "KUBERNETES_SERVICE_HOST": str(api.hostname),
            "KUBERNETES_SERVICE_PORT": str(api.port),
        }


def peak_memory(pid: int) -> int | None:
    """The peak resident set of a process in bytes. None if the system does not tell it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)
