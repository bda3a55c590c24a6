"""What `ipsrec-bench doctor` checks: the machine, a suite's data, and what lies in and beside a store.

Nothing here imports torch, which may be broken: a process of its own tries it.
"""
