"""Tests of `kmproxy/sources`."""
