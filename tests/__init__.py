"""The tests of kmproxy, one file per module and a few across all of them."""
