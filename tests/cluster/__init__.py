"""Tests with a real API server, etcd and Prometheus, built by `make cluster-tools`."""
