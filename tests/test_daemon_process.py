"""The daemon as a process: its command and environment, and the memory of a process."""

import os
import sys
from pathlib import Path

from kmproxy.daemon_process import SimulatedPod, peak_memory


def test_a_simulated_pod(monkeypatch):
    """The flags name the account and the kubelet, the environment names the API server."""
    monkeypatch.setenv("KEPT", "yes")
    pod = SimulatedPod("https://[::1]:6443", Path("/account"), "10.0.0.1", 10250)
    assert pod.command == [
        *(sys.executable, "-m", "kmproxy", "serve"),
        "--service-account-dir=/account",
        "--node-name-or-ip=10.0.0.1",
        "--node-port=10250",
        "--all-nodes",
    ]
    environment = pod.environment
    assert environment["KUBERNETES_SERVICE_HOST"] == "::1"
    assert environment["KUBERNETES_SERVICE_PORT"] == "6443"
    assert environment["KEPT"] == "yes"


def test_peak_memory():
    """Bytes for a process that runs, and None for none."""
    peak = peak_memory(os.getpid())
    assert peak is not None
    assert 1 << 20 < peak < 1 << 36
    assert peak_memory(0) is None
