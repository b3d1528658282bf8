"""Tests of kmproxy/status."""
