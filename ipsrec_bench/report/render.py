"""Rendering of a report's content to files."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup

from ipsrec_bench import __version__, extras
from ipsrec_bench.errors import BenchError, did_you_mean, listed
from ipsrec_bench.files import replace_files
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.failures import last_lines
from ipsrec_bench.report.pages import CURRENT, basis_path, page_path, report_folder, signature
from ipsrec_bench.report.plain import plain
from ipsrec_bench.report.renderer import NotDrawnError, RendererUnusableError, javascript
from ipsrec_bench.report.sentences import (
    between,
    budgets,
    cut_off,
    effect,
    finding,
    missing,
    p_value,
    percent,
    signed,
    span,
    tuned_finding,
    where,
)
from ipsrec_bench.settings import in_words
from ipsrec_bench.stats.effect import Estimate
from ipsrec_bench.words import visible

if TYPE_CHECKING:
    from ipsrec_bench.report.drawing import Chart

FORMATS = ("html", "md", "latex", "json")
PAGE = 40
"""Rows of a LaTeX table that fit on a page."""


@dataclass(frozen=True)
class Written:
    """The files of a rendered report: a page per format, and what lies beside them."""

    pages: Mapping[str, Path]
    charts: tuple[Path, ...]
    tables: tuple[Path, ...]
    """LaTeX tables, each for a document of one's own."""
    left_out: str
    """A sentence on charts that could not be drawn, and why; empty if all were."""

    @property
    def main(self) -> Path:
        """The page to look at first."""
        return next(iter(self.pages.values()))


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats named in `text`, in the order of `FORMATS`.

    Raises:
        BenchError: one is unknown.
    """
    wanted = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise BenchError(f"--format {name}: allowed: {listed(FORMATS)}{did_you_mean(name, FORMATS)}")
    if not wanted:
        raise BenchError(f"--format names no format; allowed: {listed(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted)


def write_report(
    report: Report, folder: Path, formats: Collection[str] = CURRENT, *, basis: str | None = None
) -> Written:
    """Render `report` into `folder/<suite>/`.

    HTML is one self-contained file that needs no network; charts lie beside it as SVG and PDF. LaTeX is a document, and
    a file per table and chart for documents of one's own. JSON holds everything that the others show.

    Args:
        report: what the pages say.
        folder: parent of the suite's folder.
        formats: names from `FORMATS`.
        basis: digest of what the report was made of, by which `pages.is_current` knows it again; it never does if None.

    Charts that cannot be drawn are left out, which the pages and `Written.left_out` say. Files of an earlier report are
    replaced once the new ones are whole.

    Raises:
        BenchError: the folder cannot be written.
    """
    pages = {name: page_path(folder, report.suite, name) for name in FORMATS if name in formats}
    target = report_folder(folder, report.suite)
    charts, pictures, script, left_out = _drawn(report) if {*formats} - {"json"} else ([], {}, "", "")
    files: dict[str, str | bytes] = {**pictures}
    common = {"report": report, "version": __version__, "PAGE": PAGE, "without_charts": left_out}
    tables: dict[str, str] = {}
    if "md" in formats:
        text = _environment().get_template("report.md.j2").render(**common, charts=_by_section(charts))
        files[pages["md"].name] = text
    if "latex" in formats:
        tables = {f"table-{name}.tex": text for name, text in _tex_tables(common)}
        document = _tex_environment().get_template("document.tex.j2")
        files |= {**tables, pages["latex"].name: document.render(**common, charts=charts, tables=[*tables])}
    if "json" in formats:
        content = plain(report) | {"version": __version__}
        files[pages["json"].name] = json.dumps(content, indent=1, ensure_ascii=False)
    if "html" in formats:
        files[pages["html"].name] = _html(charts, script, common)
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
    return Written(pages, tuple(target / name for name in pictures), tuple(target / name for name in tables), left_out)


def _remove_charts(folder: Path, pictures: Collection[str]) -> None:
    """Remove charts of an earlier report that are not among `pictures`: no page shows them any more."""
    for path in folder.glob("chart-[0-9][0-9]-*"):
        if path.suffix in {".svg", ".pdf"} and path.name not in pictures:
            path.unlink(missing_ok=True)


def _drawn(report: Report) -> tuple[list["Chart"], dict[str, str | bytes], str, str]:
    """Draw a report's charts.

    Returns:
        The charts, their files by name, the script that makes them answer, and a sentence on what could not be made.
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
        notes.append(f"Charts do not answer to the mouse: {error}.")
    return drawn, pictures, script, " ".join(notes)


def _html(charts: list["Chart"], script: str, common: Mapping[str, object]) -> str:
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    sources = {name: loader.get_source(environment, name)[0] for name in ("style.css", "report.js")}
    shown = {
        section: [(chart, Markup(chart.svg), Markup(_script_json(chart.spec))) for chart in members]  # noqa: S704 (our own)
        for section, members in _by_section(charts).items()
    }
    return environment.get_template("report.html.j2").render(
        **common,
        charts=shown,
        style=Markup(sources["style.css"]),  # noqa: S704 (our own)
        script=Markup(sources["report.js"]),  # noqa: S704 (our own)
        vega=Markup(script),  # noqa: S704 (the library's)
    )


def _by_section(charts: list["Chart"]) -> dict[str, list["Chart"]]:
    sections: dict[str, list[Chart]] = {}
    for chart in charts:
        sections.setdefault(chart.section, []).append(chart)
    return sections


def _tex_tables(common: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every table that has something to say."""
    template: Template = _tex_environment().get_template("tables.tex.j2")
    for name, block in template.blocks.items():
        text = "".join(block(template.new_context(dict(common)))).strip()
        if text:
            yield name, text + "\n"


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
    environment.filters = environment.filters | {  # a copy; with minus signs, not hyphens
        "percent": _tex_percent,
        "signed": _tex_signed,
        "between": _tex_between,
    }
    return environment


def _script_json(value: object) -> str:
    """Return JSON that may stand within a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escape_markdown(text: object) -> str:
    """Return `text` with everything inert that Markdown or HTML would act on."""
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_\[\]|~$]|(?<!\S)#)", r"\\\1", plain)
    return re.sub(r"^([-+=]+|\d+[.)])(?=\s|$)", lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def _fenced(lines: Sequence[str]) -> str:
    """Return a Markdown code block within a list item; no line can end it."""
    fence = "`" * max([3, *(len(run) + 1 for line in lines for run in re.findall("`+", line))])
    return "\n".join(f"  {line}" for line in (f"{fence}text", *lines, fence))


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
    **{mark: f"{{{mark}}}" for mark in "[]*"},  # which mean something after the end of a row
}
_TEX_LETTERS = {*map(chr, range(0x20, 0x7F)), *map(chr, range(0xC0, 0x100))} - {*"\u00d0\u00d7\u00de\u00f0\u00f7\u00fe"}
"""What pdfTeX can set with its own fonts."""


def _escape_tex(text: object) -> str:
    """Return `text` with everything inert that TeX would act on; a letter that pdfTeX lacks is named by its number."""
    plain = " ".join(str(text).split())
    return "".join(_TEX.get(c) or (c if c in _TEX_LETTERS else f"{{[}}U+{ord(c):04X}{{]}}") for c in plain)


def _tex_percent(value: float | None) -> str:
    return "--" if value is None else f"${percent(value).removesuffix('%')}$\\%"


def _tex_signed(value: float) -> str:
    return f"${signed(value)}$"


def _tex_between(ends: tuple[float, float]) -> str:
    low, high = ends
    return between(low, high, _tex_signed).replace("–", "--")


def _metric_name(name: str) -> str:
    return name.upper()


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _thousands(value: int) -> str:
    return f"{value:,}"


def _mebibytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f} MiB"


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


def _exact(value: float | None) -> str:
    """Return a number for programs: what a table is sorted by; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.9g}"


def _between(ends: tuple[float, float]) -> str:
    return between(*ends)


def _effect_interval(estimate: Estimate) -> str:
    return between(estimate.low, estimate.high, effect)


_FILTERS: dict[str, Callable[..., Any]] = {
    "md": _escape_markdown,
    "tex": _escape_tex,
    "metric": _metric_name,
    "value": _value,
    "percent": percent,
    "span": span,
    "share": _share,
    "p": p_value,
    "signed": signed,
    "thousands": _thousands,
    "mib": _mebibytes,
    "moment": _moment,
    "effect": effect,
    "effect_interval": _effect_interval,
    "exact": _exact,
    "cut_off": cut_off,
    "finding": finding,
    "missing": missing,
    "last_lines": last_lines,
    "fenced": _fenced,
    "where": where,
    "tuned_finding": tuned_finding,
    "between": _between,
    "budgets": budgets,
    "words": in_words,
}
