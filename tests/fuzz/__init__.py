"""Coverage-guided runs, apart from the tests: `make fuzz`."""
