"""Signals that end a command gracefully."""

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
