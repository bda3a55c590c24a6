"""Conformance suites that users may run on their own models, tiny known worlds, and parity with references."""

from ipsrec_bench.testing.models import CountingModelCase, SequentialModelCase
from ipsrec_bench.testing.tasks import TaskCase

__all__ = ["CountingModelCase", "SequentialModelCase", "TaskCase"]
