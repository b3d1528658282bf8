"""Tests of `kmproxy/cli`."""
