"""Tests of the simulated kubelet."""
