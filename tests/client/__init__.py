"""Tests of `kmproxy/client`."""
