"""Displays of a running suite: pure functions from events to renderables."""
