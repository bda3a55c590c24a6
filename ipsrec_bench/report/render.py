"""Rendering of a report's content to files."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from ipsrec_bench import __version__, extras
from ipsrec_bench.errors import BenchError, did_you_mean, listed
from ipsrec_bench.files import replace_files
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.markup import (
    fenced,
    html_words,
    latex,
    latex_number,
    latex_words,
    markdown,
    markdown_words,
    script_json,
)
from ipsrec_bench.report.notices import notices_of
from ipsrec_bench.report.pages import CURRENT, SITE, basis_path, page_path, report_folder, signature
from ipsrec_bench.report.plain import plain
from ipsrec_bench.report.renderer import NotDrawnError, RendererUnusableError, javascript
from ipsrec_bench.report.sentences import environment, finding, tuned_finding, where
from ipsrec_bench.report.summary import summary
from ipsrec_bench.report.table import Table
from ipsrec_bench.report.tables import tables_of
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.report.drawing import Chart


class _OfSection(Protocol):
    @property
    def section(self) -> str: ...


_Part = TypeVar("_Part", bound=_OfSection)

FORMATS = ("html", "md", "latex", "json")
"""Formats of one report."""
ALL_FORMATS = (*FORMATS, SITE)
LONG = 12
"""Maximum number of lines of a table or a list that the HTML page shows unasked."""


@dataclass(frozen=True)
class Written:
    """The files of a rendered report: a page per format, and what lies beside them."""

    pages: Mapping[str, Path]
    charts: tuple[Path, ...]
    tables: tuple[Path, ...]
    """LaTeX tables, each to include in another document."""
    left_out: str
    """A sentence on charts that could not be drawn, and why; empty if all were."""

    @property
    def main(self) -> Path:
        """The page to look at first."""
        return next(iter(self.pages.values()))


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats named in `text`, in the order of `ALL_FORMATS`.

    Raises:
        BenchError: one is unknown.
    """
    wanted = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in ALL_FORMATS:
            raise BenchError(f"--format {name}: allowed: {listed(ALL_FORMATS)}{did_you_mean(name, ALL_FORMATS)}")
    if not wanted:
        raise BenchError(f"--format names no format; allowed: {listed(ALL_FORMATS)}")
    return tuple(name for name in ALL_FORMATS if name in wanted)


def write_report(
    report: Report, folder: Path, formats: Collection[str] = CURRENT, *, basis: str | None = None
) -> Written:
    """Render `report` into `folder/<suite>/`.

    HTML is one self-contained file that needs no network; charts lie beside it as SVG and PDF. LaTeX is a document, and
    a file per table and chart to include in others. JSON holds everything that the others show.

    Args:
        report: what the pages say.
        folder: parent of the suite's folder.
        formats: names from `FORMATS`.
        basis: digest of what the report was made from, for `pages.is_current`; None: the pages never count as current.

    Charts that cannot be drawn are left out, which the pages and `Written.left_out` say. Files of an earlier report are
    replaced once the new ones are complete.

    Raises:
        BenchError: the folder cannot be written.
    """
    pages = {name: page_path(folder, report.suite, name) for name in FORMATS if name in formats}
    target = report_folder(folder, report.suite)
    charts, pictures, script, left_out = drawn(report) if {*formats} - {"json"} else ([], {}, "", "")
    files: dict[str, str | bytes] = {**pictures}
    tables = tables_of(report)
    common = {"report": report, "notices": notices_of(report, left_out)}
    latex_tables: dict[str, str] = {}
    if "md" in formats:
        page = _environment().get_template("report.md.j2")
        files[pages["md"].name] = page.render(**common, tables=_by_section(tables), charts=_by_section(charts))
    if "latex" in formats:
        latex_tables = _latex_tables(report, tables)
        document = _tex_environment().get_template("document.tex.j2")
        files |= latex_tables
        files[pages["latex"].name] = document.render(**common, charts=charts, tables=[*latex_tables])
    if "json" in formats:
        files[pages["json"].name] = _json(plain(report) | {"version": __version__})
    if "html" in formats:
        files[pages["html"].name] = html_page(
            "report.html.j2", tables=tables, charts=charts, vega=script, library="", **common
        )
    made_of = basis_path(folder, report.suite)
    try:
        made_of.unlink(missing_ok=True)
        replace_files(target, files)
        if pictures and not left_out:
            _remove_charts(target, pictures)
        if basis is not None and {*CURRENT} <= {*formats} and not left_out:
            replace_files(target, {made_of.name: signature(basis)})
    except OSError as error:
        raise BenchError(
            f"{target}: the report cannot be written there: {error.strerror}; files of an earlier one are kept"
        ) from None
    return Written(
        pages, tuple(target / name for name in pictures), tuple(target / name for name in latex_tables), left_out
    )


def _json(content: Mapping[str, object]) -> str:
    """Return an object as JSON with a line for each of its entries; indenting every value takes ten times as long."""
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _remove_charts(folder: Path, pictures: Collection[str]) -> None:
    """Remove charts of an earlier report that are not among `pictures`: no page shows them any more."""
    for path in folder.glob("chart-[0-9][0-9]-*"):
        if path.suffix in {".svg", ".pdf"} and path.name not in pictures:
            path.unlink(missing_ok=True)


def drawn(report: Report) -> tuple[list["Chart"], dict[str, str | bytes], str, str]:
    """Draw a report's charts.

    Returns:
        The charts, their files by name, the script that makes them interactive, and a sentence on what is missing.
    """
    if clause := extras.missing("report"):
        return [], {}, "", f"Charts are left out: {clause}."
    from ipsrec_bench.report.charts import charts_of

    charts = charts_of(report)
    drawn: list[Chart] = []
    pictures: dict[str, str | bytes] = {}
    reasons: dict[str, str] = {}
    for number, chart in enumerate(charts):
        try:
            pictures |= {f"{chart.name}.svg": chart.svg_file, f"{chart.name}.pdf": chart.pdf_file}
            drawn.append(chart)
        except RendererUnusableError as error:
            reasons |= {left.title: str(error) for left in charts[number:]}
            break
        except NotDrawnError as error:
            reasons[chart.title] = str(error)
    script, notes = "", []
    if reasons:
        which = f"These charts are left out: {listed(reasons)}" if drawn else "Charts are left out"
        notes.append(f"{which}: {'; '.join(dict.fromkeys(reasons.values()))}.")
    try:
        script = javascript() if drawn else ""
    except NotDrawnError as error:
        notes.append(f"Charts are not interactive: {error}.")
    return drawn, pictures, script, " ".join(notes)


def html_page(
    template: str, *, tables: Sequence[Table], charts: Sequence["Chart"] = (), vega: str = "", **content: object
) -> str:
    """Return a page in HTML.

    Args:
        template: its file's name.
        tables: those of the page.
        charts: those of the page.
        vega: the script that makes charts answer.
        content: further variables of the template.
    """
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    sources = {name: loader.get_source(environment, name)[0] for name in ("style.css", "report.js")}
    shown = {
        section: [(chart, Markup(chart.svg), Markup(script_json(chart.spec))) for chart in members]  # noqa: S704 (our own)
        for section, members in _by_section(charts).items()
    }
    return environment.get_template(template).render(
        **content,
        tables=_by_section(tables),
        charts=shown,
        LONG=LONG,
        style=Markup(sources["style.css"]),  # noqa: S704 (our own)
        script=Markup(sources["report.js"]),  # noqa: S704 (our own)
        vega=Markup(vega),  # noqa: S704 (the library's)
    )


def _by_section(parts: Sequence[_Part]) -> dict[str, list[_Part]]:
    sections: dict[str, list[_Part]] = {}
    for part in parts:
        sections.setdefault(part.section, []).append(part)
    return sections


def _latex_tables(report: Report, tables: Sequence[Table]) -> dict[str, str]:
    """Return the LaTeX files with tables, by name."""
    template = _tex_environment().get_template("table.tex.j2")
    files: dict[str, list[str]] = {}
    for table in tables:
        if table.latex:
            parts = [template.render(table=part, caution=report.caution) for part in table.flat(latex=True).pages()]
            files.setdefault(f"table-{table.latex}.tex", []).extend(parts)
    return {name: "\n".join(parts) for name, parts in files.items()}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ipsrec_bench.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    environment.globals["version"] = __version__
    return environment


def _visible(value: object) -> object:
    """Return what a template shows, without characters that act on a terminal or turn the direction of writing."""
    return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _tex_environment() -> Environment:
    """Return an environment whose marks do not clash with the braces and percents of TeX."""
    environment = _environment().overlay(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.autoescape = False
    return environment


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


_FILTERS: dict[str, Callable[..., Any]] = {
    "metric": str.upper,
    "moment": _moment,
    "environment": environment,
    "finding": finding,
    "summary": summary,
    "where": where,
    "tuned_finding": tuned_finding,
    "words": html_words,
    "md": markdown,
    "md_words": markdown_words,
    "fenced": fenced,
    "tex": latex,
    "tex_words": latex_words,
    "tex_number": latex_number,
}
