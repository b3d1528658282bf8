"""Tests of `kmproxy/config`."""
