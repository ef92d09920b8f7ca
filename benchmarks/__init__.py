"""Benchmarks: `make help` lists them. They measure; they are no tests."""
