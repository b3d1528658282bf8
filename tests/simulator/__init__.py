"""Tests of `kmproxy/simulator`."""
