"""Rendering of a report's content to files."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from ipsrec_bench import __version__
from ipsrec_bench.errors import BenchError
from ipsrec_bench.report.charts import learning_curves
from ipsrec_bench.report.content import Report

SMALLEST_P = 1e-4


@dataclass(frozen=True)
class Written:
    """The files of a rendered report."""

    html: Path
    markdown: Path
    charts: tuple[Path, ...]


def write_report(report: Report, folder: Path) -> Written:
    """Render `report` into `folder/<suite>/`: a self-contained HTML file, a Markdown file and its charts (SVG).

    Raises:
        BenchError: the folder cannot be written.
    """
    target = folder / _file_name(report.suite)
    environment = Environment(
        loader=PackageLoader("ipsrec_bench.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    charts = [(curves, learning_curves(curves)) for curves in report.curves]
    files = {
        target / f"learning-curves-{number}-{_file_name(curves.dataset)}.svg": _standalone(svg)
        for number, (curves, svg) in enumerate(charts, start=1)
    }
    common = {"report": report, "version": __version__}
    html, markdown = target / f"{_file_name(report.suite)}.html", target / f"{_file_name(report.suite)}.md"
    pages = {
        html: environment.get_template("report.html.j2").render(
            **common,
            charts=[(curves, Markup(svg)) for curves, svg in charts],  # noqa: S704 (our own chart)
        ),
        markdown: environment.get_template("report.md.j2").render(
            **common,
            charts=[(curves, path.name) for (curves, _), path in zip(charts, files, strict=True)],
        ),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, text in (files | pages).items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{target}: the report cannot be written there: {error.strerror}") from None
    return Written(html, markdown, tuple(files))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _standalone(svg: str) -> str:
    """Give a chart that stands in a file of its own the colour that its page would have given it."""
    return svg.replace("currentColor", "#555")


def _escape_markdown(text: object) -> str:
    """Return `text` with everything inert that Markdown or HTML would act on."""
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)


def _metric_name(name: str) -> str:
    return name.upper()


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}%"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _p_value(value: float) -> str:
    return "< 0.0001" if value < SMALLEST_P else f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _thousands(value: int) -> str:
    return f"{value:,}"


def _mebibytes(value: int) -> str:
    return f"{value / 2**20:,.0f} MiB"


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


_FILTERS: dict[str, Callable[..., str]] = {
    "md": _escape_markdown,
    "metric": _metric_name,
    "value": _value,
    "percent": _percent,
    "share": _share,
    "p": _p_value,
    "signed": _signed,
    "thousands": _thousands,
    "mib": _mebibytes,
    "moment": _moment,
}
