"""Where tasks are done: one interface, one file an executor; none of them knows suites or stores."""
