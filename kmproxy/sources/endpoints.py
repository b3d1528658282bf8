"""The metrics endpoints of a kubelet, and the API server's path to them.

Must not know which paths of kmproxy's own lead there.
"""

CADVISOR = "/metrics/cadvisor"
METRICS = "/metrics"
ENDPOINTS = (CADVISOR, METRICS, "/metrics/resource", "/metrics/probes")
"""What is fetched from a kubelet, and nothing else ever is."""

NODE_PREFIX = "/api/v1/nodes/{node}/proxy"
"""Where the API server has a node's endpoints."""
