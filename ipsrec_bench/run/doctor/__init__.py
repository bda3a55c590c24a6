"""Checks of `ipsrec-bench doctor`: the machine, a suite's data, and a store with the files beside it.

Nothing here imports torch, which may be broken; a separate process tests it.
"""
