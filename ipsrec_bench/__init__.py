"""Benchmarks for provider-aware sequential recommendation: train, rank, store, test, report."""

__version__ = "0.1.0"
