"""Suites: their schema, their files, and their expansion into cells."""
