"""Tests of `kmproxy/labels`."""
