"""Tests of `kmproxy/auth`."""
