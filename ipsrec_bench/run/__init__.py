"""Carrying a suite out: what is to be done, one cell's work, and who does it."""
