"""Executors run tasks: one interface, one file per executor; none of them knows suites or stores."""
