"""Tests of `kmproxy/exposition`."""
