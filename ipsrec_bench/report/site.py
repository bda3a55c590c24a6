"""A folder of linked pages: an index of suites, and for each one its report with the history of its runs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from ipsrec_bench.errors import BenchError, listed
from ipsrec_bench.files import replace_files
from ipsrec_bench.report.content import History, PastRun, Report, Row
from ipsrec_bench.report.notices import notices_of
from ipsrec_bench.report.pages import SITE, file_name
from ipsrec_bench.report.render import drawn, html_page
from ipsrec_bench.report.table import NONE, Cell, Column, Table, count, exact, number, rows_of, text
from ipsrec_bench.report.tables import tables_of

MARKER = ".ipsrec-bench-site"
"""File that lists the files of the site: only these are ever replaced or removed."""
LIBRARY = "assets/vega-embed.js"
RECENT = 6
"""Runs whose values stand side by side; those of older ones are in the details."""


def write_site(
    suites: Iterable[tuple[Report, History]], folder: Path, left_out: Sequence[str] = ()
) -> tuple[Path, tuple[str, ...]]:
    """Write the pages of `suites` and their index into `folder/site/`.

    Each file is replaced once its new one is complete. Pages of an earlier site that are not part of this one are
    removed at the end. Files that no site wrote stay.

    Args:
        suites: each suite's report and history, in the order of the index; consumed one at a time.
        folder: parent of the site's folder.
        left_out: a sentence for each suite that cannot be shown; the index has them.

    Returns:
        The index, and a sentence for each suite with charts that could not be drawn.

    Raises:
        BenchError: the folder cannot be written, or holds a file with the name of a page that no site wrote.
    """
    site = _Site(folder / SITE)
    shown: list[tuple[Report, str]] = []
    undrawn: list[str] = []
    for report, history in suites:
        charts, pictures, script, missing = drawn(report)
        if script:
            site.write({LIBRARY: script})
        page = html_page(
            "report.html.j2",
            report=report,
            notices=notices_of(report, missing),
            tables=[*tables_of(report), *_history_tables(history)],
            charts=charts,
            vega=script,
            library=f"../../{LIBRARY}",
        )
        place = f"suites/{file_name(report.suite)}"
        site.write({f"{place}/{name}": content for name, content in pictures.items()} | {f"{place}/index.html": page})
        shown.append((report, quote(f"{place}/index.html")))
        if missing:
            undrawn.append(f"{report.suite}: {missing}")
    site.write({"index.html": html_page("index.html.j2", tables=_index_tables(shown), left_out=left_out)})
    site.clear()
    return site.folder / "index.html", tuple(undrawn)


class _Site:
    """The files of a site by their paths, of which the marker in the folder keeps a list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: set[str] = set()
        try:
            self._earlier = {str(name) for name in json.loads((folder / MARKER).read_text(encoding="utf-8"))}
        except FileNotFoundError:
            self._earlier = set()
        except (OSError, ValueError):
            raise BenchError(
                f"{folder / MARKER}: this list of the site's files cannot be read; move the folder away, or give"
                " another one with --output"
            ) from None

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files. The marker lists them before they are there, so a killed process leaves no file unlisted."""
        names = {*files} - self._earlier - self._written
        if strange := sorted(name for name in names if (self.folder / name).exists()):
            raise BenchError(
                f"{self.folder}: {listed(strange)} there is not part of a site of ipsrec-bench and is not overwritten;"
                " move it away, or give another folder with --output"
            )
        self._written |= {*files}
        by_folder: dict[Path, dict[str, str | bytes]] = {}
        for name, content in files.items():
            by_folder.setdefault((self.folder / name).parent, {})[PurePosixPath(name).name] = content
        self._try(lambda: self._list(self._written | self._earlier))
        for folder, members in by_folder.items():
            self._try(partial(replace_files, folder, members))

    def clear(self) -> None:
        """Remove the files of the earlier site that were not written again, and folders that are empty then."""

        def remove() -> None:
            for name in self._earlier - self._written:
                path = self.folder / name
                if path.resolve().is_relative_to(self.folder.resolve()):  # whoever may have edited the list
                    path.unlink(missing_ok=True)
                    if path.parent.is_dir() and not any(path.parent.iterdir()):
                        path.parent.rmdir()
            self._list(self._written)

        self._try(remove)

    def _list(self, names: Iterable[str]) -> None:
        replace_files(self.folder, {MARKER: json.dumps(sorted(names), indent=1)})

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise BenchError(
                f"{self.folder}: the site cannot be written there: {error.strerror}; pages of an earlier one are kept"
            ) from None


# The index


def _index_tables(suites: Sequence[tuple[Report, str]]) -> list[Table]:
    columns = (
        Column("Suite", lambda line: Cell(line[0].suite, link=line[1]), "left"),
        Column("Title", lambda line: text(line[0].headline), "left", long=True),
        Column("Last run", lambda line: text(f"{line[0].started:%Y-%m-%d %H:%M}"), "left"),
        Column("Cells done", lambda line: _done(line[0].cells - len(line[0].missing), line[0].cells)),
        Column("Failed", lambda line: count(sum(cell.error is not None for cell in line[0].missing))),
        Column("Seeds", lambda line: count(line[0].seeds)),
        Column("Datasets", lambda line: text(", ".join(_datasets(line[0])) or NONE), "left", long=True),
        Column("Models", lambda line: text(", ".join(_models(line[0])) or NONE), "left", long=True),
    )
    best = (
        Column("Suite", lambda line: Cell(line[0], link=line[1]), "left", key=True),
        Column("Dataset", lambda line: text(line[2]), "left"),
        Column("Metric", lambda line: text(line[3]), "left"),
        Column("Best", lambda line: text(line[4]), "left", long=True),
        Column("Value", lambda line: line[5]),
    )
    times = "Times are UTC. Cells: of the newest run of the suite."
    means = "Mean over seeds ± standard deviation. Values of different suites may rank other targets."
    return [
        Table("suites", "suites", "Suites", columns, rows_of(columns, suites), times, "suites", "never"),
        Table("best", "best", "Best models", best, rows_of(best, _best(suites)), means, "datasets", "never"),
    ]


def _done(complete: int, cells: int) -> Cell:
    return Cell(f"{complete:,} of {cells:,}", value=exact(complete))


def _datasets(report: Report) -> list[str]:
    return list(dict.fromkeys(line.dataset for line in report.results.lines))


def _models(report: Report) -> list[str]:
    return [row.display for row in report.results.columns]


def _best(suites: Sequence[tuple[Report, str]]) -> Iterator[tuple[str, str, str, str, str, Cell]]:
    """Yield suite, address, dataset, metric, names and value of the best models of every dataset."""
    for report, link in suites:
        for line in report.results.lines:
            scores = {
                row.display: cell.score
                for row, cell in zip(report.results.columns, line.cells, strict=True)
                if cell.best and cell.score
            }
            if line.metric == report.metric and scores:
                score = next(iter(scores.values()))
                spread = f"± {score.deviation:.4f}" if score.deviation is not None else ""
                value = Cell(f"{score.mean:.4f}", spread, value=exact(score.mean))
                yield report.suite, link, line.dataset, line.metric.upper(), ", ".join(scores), value


# The history of a suite


def _history_tables(history: History) -> list[Table]:
    columns = (
        Column("Run", lambda run: count(run.run), "left"),
        Column("Started", lambda run: text(f"{run.started:%Y-%m-%d %H:%M}"), "left"),
        Column("ipsrec-bench", lambda run: text(", ".join(run.versions) or NONE), "left"),
        Column("Cells done", lambda run: _done(run.complete, run.cells)),
        Column("Failed", lambda run: count(run.failed)),
        Column("Differs from the run before in", lambda run: text(_changed(run)), "left", long=True),
    )
    note = (
        "Every start of the suite, newest first; times are UTC. Cells are counted as the store has them now, and"
        " ipsrec-bench is the version that trained them."
    )
    tables = [Table("runs", "runs", "Runs of this suite", columns, rows_of(columns, history.runs), note, "runs")]
    if len(history.runs) > 1:
        tables.append(_values(history))
    return tables


def _changed(run: PastRun) -> str:
    if run.changes is None:
        return "first run"
    return "; ".join(run.changes) or "nothing"


def _values(history: History) -> Table:
    def value(run: PastRun) -> Callable[[tuple[str, Row]], Cell]:
        return lambda place: number(run.values.get(place))

    places = dict.fromkeys(place for run in history.runs for place in run.values)
    order = list(dict.fromkeys(dataset for dataset, _ in places))
    columns = (
        Column("Dataset", lambda place: text(place[0]), "left", key=True),
        Column("Model", lambda place: text(place[1].display), "left"),
        *(
            Column((f"Run {run.run}", f"{run.started:%Y-%m-%d}"), value(run), folded=place >= RECENT)
            for place, run in enumerate(history.runs)
        ),
    )
    rows = rows_of(columns, sorted(places, key=lambda place: order.index(place[0])), dataset=lambda place: place[0])
    metric = history.metric.upper()
    note = f"{metric} on the test targets, mean over the seeds of the run; {NONE} where the run has no such row."
    return Table("values", "runs", f"{metric} in each run", columns, rows, note, "models")
