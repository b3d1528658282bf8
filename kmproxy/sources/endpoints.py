"""The metrics endpoints of a kubelet, and the API server's path to them.

Must not know which of kmproxy's own paths lead to them.
"""

CADVISOR = "/metrics/cadvisor"
METRICS = "/metrics"
RESOURCE = "/metrics/resource"
ENDPOINTS = (CADVISOR, METRICS, RESOURCE, "/metrics/probes")
"""The metrics endpoints that kmproxy fetches from a kubelet. It never fetches other metrics."""

NODE_PREFIX = "/api/v1/nodes/{node}/proxy"
"""The path of a node's endpoints on the API server, without the endpoint itself."""
