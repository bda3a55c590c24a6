"""Signals that end a command in order."""

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
