"""Tests of `kmproxy/discovery`."""
