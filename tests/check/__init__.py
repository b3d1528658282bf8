"""Tests of `kmproxy/check`."""
