"""Tests of `kmproxy/bench`."""
