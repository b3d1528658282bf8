"""Tests of promises that hold whatever happens."""
