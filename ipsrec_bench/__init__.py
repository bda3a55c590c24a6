"""Benchmarks for provider-aware sequential recommendation: train, rank, store, test, report."""

__version__ = "0.2.0"
