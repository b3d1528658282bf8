"""Tests of `kmproxy/web`."""
