"""Tests of container logs."""
