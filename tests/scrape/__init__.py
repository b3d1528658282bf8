"""Tests of `kmproxy/scrape`."""
