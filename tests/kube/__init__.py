"""Tests of `kmproxy/kube`."""
