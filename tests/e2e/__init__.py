"""The proof with real programs: Prometheus, Alertmanager, an API server."""
