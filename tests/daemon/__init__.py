"""Tests of `kmproxy/daemon`."""
