"""Renders charts in a separate process, so that a crash of the renderer does not end this one."""

import atexit
import base64
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ipsrec_bench.files import replace_files


class NotDrawnError(Exception):
    """The renderer refused a chart, or ended while it drew it; the message is a clause."""


class RendererUnusableError(NotDrawnError):
    """A renderer ended at its first request, so the next one would, too."""


def svg_of(specification: Mapping[str, Any]) -> str:
    """Return the picture of a Vega-Lite specification as SVG.

    Raises:
        NotDrawnError: it cannot be drawn.
    """
    return _renderer().ask("svg", specification)


def pdf_of(svg: str) -> bytes:
    """Return an SVG picture as PDF.

    Raises:
        NotDrawnError: it cannot be drawn.
    """
    return base64.b64decode(_renderer().ask("pdf", svg))


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which sets `window.vegaEmbed` and fetches nothing.

    Bundling takes the renderer two seconds, so the script of each renderer version is kept in the user's cache folder.

    Raises:
        NotDrawnError: the renderer cannot bundle it.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (Path's raises without a home)
    kept = Path(home, "ipsrec-bench", f"vega-embed-{version('vl-convert-python')}.js")
    if not kept.is_absolute():
        return _bundled()
    try:
        return kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        script = _bundled()
    with contextlib.suppress(OSError):
        replace_files(kept.parent, {kept.name: script})
    return script


def _bundled() -> str:
    return _renderer().ask("bundle", "window.vegaEmbed = vegaEmbed;")


@cache
def _renderer() -> "_Renderer":
    renderer = _Renderer()
    atexit.register(renderer.stop)
    return renderer


class _Renderer:
    """The renderer's process; it takes half a second to start and is kept until this one ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, content: object) -> str:
        """Return the renderer's answer to a request."""
        if self._process is not None and self._process.poll() is not None:  # killed while it waited
            self.stop()
        fresh = self._process is None
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        line = ""
        try:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps([kind, content]), file=process.stdin, flush=True)
                line = process.stdout.readline()
        finally:
            if not line:  # it has ended, or its answer is not waited for
                code = self.stop()
        if not line:
            raise (RendererUnusableError if fresh else NotDrawnError)(_why(code))
        made, error = json.loads(line)
        if error is not None:
            raise NotDrawnError(f"the chart renderer refused it: {error}")
        return str(made)

    def stop(self) -> int:
        """End the renderer's process; return its exit code, negative for a signal."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        return process.returncode


def _start() -> subprocess.Popen[str]:
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ipsrec_bench.report.painter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=found,
    )


def _why(code: int) -> str:
    limits = {"-v": resource.RLIMIT_AS, "-d": resource.RLIMIT_DATA}
    limited = [
        f"ulimit {flag}" for flag, which in limits.items() if resource.getrlimit(which)[0] != resource.RLIM_INFINITY
    ]
    ended = f"the chart renderer ended by signal {-code}" if code < 0 else f"the chart renderer ended with code {code}"
    if limited:
        return f"{ended}; it needs unlimited address space, and {' and '.join(limited)} sets a limit"
    return f"{ended}; there may be too little memory"
