"""Running a suite: the plan, the work of one cell, and the executors."""
