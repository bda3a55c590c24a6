"""The process that draws charts, run by `report.renderer`: requests on standard input, answers on standard output.

Each is a line of JSON. vl-convert is a JavaScript engine, which ends its whole process when it cannot get memory.
"""

import base64
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import vl_convert


def main() -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no core dump
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks: when it ends, so do requests
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the engine's own output must not mix with answers
        for line in sys.stdin:
            kind, content = json.loads(line)
            try:
                answer = [_MAKERS[kind](content), None]
            except Exception as error:  # noqa: BLE001 (the engine's errors have no common base class)
                answer = [None, str(error)]
            print(json.dumps(answer), file=answers, flush=True)


def _svg(specification: dict[str, object]) -> str:
    text: str = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[])
    return text


def _pdf(svg: str) -> str:
    return base64.b64encode(vl_convert.svg_to_pdf(svg)).decode("ascii")


def _bundle(script: str) -> str:
    text: str = vl_convert.javascript_bundle(script)
    return text


_MAKERS: dict[str, Callable[[Any], str]] = {"svg": _svg, "pdf": _pdf, "bundle": _bundle}

if __name__ == "__main__":
    main()
