"""Our results beside the values that papers printed."""

from collections.abc import Iterable, Iterator, Mapping

from ipsrec_bench.published.papers import Paper, PublishedDataset, PublishedTable, check_gains, papers
from ipsrec_bench.report.content import (
    AblationCell,
    AblationLine,
    AblationTable,
    AgainstPaper,
    DatasetLine,
    PaperTables,
    PublishedLine,
    ResultCell,
    ResultLine,
    ResultTable,
    Row,
    Score,
)
from ipsrec_bench.report.effects import effects_of
from ipsrec_bench.report.results import Results, row_of
from ipsrec_bench.stats.effect import next_training
from ipsrec_bench.store.queries import CellSummary
from ipsrec_bench.suite.cells import TUNED

TIES = {"realistic": "the middle of the tied ranks", "expected": "the mean over all orders of the ties"}


def against_papers(
    results: Results, summaries: Mapping[str, CellSummary], datasets: Iterable[DatasetLine]
) -> Iterator[AgainstPaper]:
    """Yield a comparison with every paper that reports on a dataset of the run, matched by name.

    Stand-in data are never compared with a paper's numbers, whatever the dataset is called.
    """
    known = {line.label: line for line in datasets}
    for paper in papers().values():
        shared = [name for name in paper.datasets if name in known]
        if not shared:
            continue
        real = [name for name in shared if not known[name].statistics.stand_in]
        yield AgainstPaper(
            paper_tables(paper),
            tuple(line for name in real for line in _lines(paper, results, summaries, name)),
            tuple(effects_of(paper, results, {name: _matched(paper, results, summaries, name) for name in real})),
            tuple(difference for name in real for difference in _differences(paper, results, summaries, known[name])),
            tuple(
                f"{name}: the data here are a stand-in, so published numbers do not apply to them"
                for name in shared
                if name not in real
            ),
        )


def paper_tables(paper: Paper) -> PaperTables:
    """Return the paper's own tables, in the form of ours."""
    return PaperTables(
        paper.title,
        paper.short,
        paper.doi,
        tuple(
            (d.title, (d.users, d.items, d.actions, d.providers, d.provider_actions)) for d in paper.datasets.values()
        ),
        _result_table(paper),
        None if paper.ablation is None else _ablation_table(paper, paper.ablation),
        tuple(
            f"{paper.datasets[check.dataset].title} {check.metric.upper()}, {paper.rows[check.row].title}: printed"
            f" {100 * check.printed:.1f}%, but relative to the best baseline of the"
            f" line, {paper.rows[check.against].title}, it is {100 * check.recomputed:.1f}%"
            + (f"; the printed one is relative to {paper.rows[check.explained_by].title}" if check.explained_by else "")
            for check in check_gains(paper)
            if not check.agrees
        ),
        paper.note,
    )


def places(values: Iterable[float | None]) -> list[int | None]:
    """Return the place of every value; 0 is the best. Values that print alike tie: two at 0.0531 are both best."""
    printed = [None if value is None else round(value, 4) for value in values]
    levels = sorted({value for value in printed if value is not None}, reverse=True)
    return [None if value is None else levels.index(value) for value in printed]


def _row(paper: Paper, name: str) -> Row:
    published = paper.rows[name]
    return Row(name, published.title, paper.type_of(name), published.title if published.settings else "")


def _result_table(paper: Paper) -> ResultTable:
    table = paper.results
    columns = tuple(_row(paper, name) for name in table.rows)
    lines = []
    for dataset, metrics in table.values.items():
        for metric, printed in metrics.items():
            gains = dict(zip((name for name in table.rows if name in paper.proposed), printed.gains, strict=True))
            cells = tuple(
                ResultCell(
                    Score(value, None, 1),
                    best=place == 0,
                    second=place == 1,
                    gain=gains[name] / 100 if name in gains else None,
                    mark="*" if name in gains else "",
                )
                for name, value, place in zip(table.rows, printed.values, places(printed.values), strict=True)
            )
            lines.append(ResultLine(paper.datasets[dataset].title, metric, cells))
    return ResultTable(columns, frozenset(paper.proposed), tuple(lines))


def _ablation_table(paper: Paper, table: PublishedTable) -> AblationTable:
    columns = [(dataset, metric) for dataset, metrics in table.values.items() for metric in metrics]
    lines = []
    for index, name in enumerate(table.rows):
        row = _row(paper, name)
        cells = tuple(
            AblationCell(Score(table.values[dataset][metric].values[index], None, 1)) for dataset, metric in columns
        )
        lines.append(AblationLine(row, bool(row.variant), cells))
    return AblationTable(tuple((paper.datasets[dataset].title, metric) for dataset, metric in columns), tuple(lines))


def _lines(
    paper: Paper, results: Results, summaries: Mapping[str, CellSummary], dataset: str
) -> Iterator[PublishedLine]:
    matched = _matched(paper, results, summaries, dataset)
    for metric in results.run.suite.protocol.shown:
        for name, row in matched.items():
            theirs = paper.value(dataset, metric, name)
            if theirs is not None:
                means = results.by_seed(dataset, row, metric)
                ends = next_training(means, results.run.suite.statistics.confidence)
                low, high = (max(ends[0], 0.0), min(ends[1], 1.0)) if ends else (None, None)
                mean, gain = sum(means) / len(means), _published_gain(paper, dataset, metric)
                yield PublishedLine(dataset, metric, row, theirs, mean, len(means), low, high, gain)


def _published_gain(paper: Paper, dataset: str, metric: str) -> float | None:
    values = {name: paper.value(dataset, metric, name) for name in paper.results.rows}
    proposed = [value for name, value in values.items() if value is not None and name in paper.proposed]
    others = [value for name, value in values.items() if value is not None and name not in paper.proposed]
    return max(proposed) - max(others) if proposed and others else None


def _matched(paper: Paper, results: Results, summaries: Mapping[str, CellSummary], dataset: str) -> dict[str, Row]:
    """Return our row for each of the paper's: the same model with the settings that distinguish the paper's row."""
    found: dict[str, Row] = {}
    for cell in results.run.cells:
        if cell.dataset != dataset or cell.key not in results.ranks or cell.variant == TUNED:
            continue
        settings = summaries[cell.key].settings
        for name, published in paper.rows.items():
            agrees = all(
                settings.get(part, {}).get(key) == value
                for part, wanted in (("config", published.settings), ("training", published.training))
                for key, value in wanted.items()
            )
            if paper.type_of(name) == cell.type and agrees and bool(published.settings) == bool(cell.variant):
                found.setdefault(name, row_of(cell))
    return found


def _differences(
    paper: Paper, results: Results, summaries: Mapping[str, CellSummary], line: DatasetLine
) -> Iterator[str]:
    """Yield how our cells on a dataset differ from the paper's, and what cannot be checked against it."""
    published, counted = paper.datasets[line.label], line.statistics
    yield from (f"{line.label}: {difference}" for difference in _data_differences(published, line, paper.padding))
    ties = paper.protocol["ties"]
    rule = TIES[results.run.suite.protocol.ties]
    yield f"{line.label}: ties: here {rule}; the paper: {ties}"
    yield (
        f"{line.label}: data: fingerprint {counted.fingerprint[:12]} here; the paper gives none, so only counts"
        " can be checked"
    )
    names = {row.label: name for name, row in _matched(paper, results, summaries, line.label).items()}
    said: dict[str, list[str]] = {}
    for cell in results.run.cells:
        if cell.dataset != line.label or cell.label not in names or cell.key not in results.ranks:
            continue
        settings = summaries[cell.key].settings
        wanted = {
            "protocol": {
                "split": paper.protocol["split"],
                "mask_history": paper.protocol["mask_history"],
                "max_length": published.max_length,
            },
            "training": {**paper.training, **paper.rows[names[cell.label]].training},
            "config": paper.rows[names[cell.label]].common,
        }
        for part, values in wanted.items():
            for key, theirs in values.items():
                ours = settings.get(part, {}).get(key)
                if ours != theirs:
                    rows = said.setdefault(f"{key}: {_shown(ours)} here, {_shown(theirs)} in the paper", [])
                    rows += [cell.display] if cell.display not in rows else []
    for difference, rows in said.items():
        yield f"{line.label}: {difference} ({', '.join(rows)})"
    if len(results.run.suite.seeds) > 1:
        yield f"{line.label}: seeds: {len(results.run.suite.seeds)} here; {paper.protocol['seeds']}"


def _data_differences(published: PublishedDataset, line: DatasetLine, padding: int) -> Iterator[str]:
    counted = line.statistics
    if counted.filter != "none":
        yield f"filter: {counted.filter} here, none in the paper"
    if counted.scale < 1:
        yield f"users: a sample of {100 * counted.scale:g}% here, all in the paper"
    for what, ours, theirs in (
        ("users", counted.users, published.users - padding),
        ("items", counted.items, published.items - padding),
        ("interactions", counted.actions, published.actions),
        ("providers", counted.providers, None if published.providers is None else published.providers - padding),
        ("interactions with a provider", counted.known_provider_actions, published.provider_actions),
    ):
        if theirs is not None and ours != theirs:
            yield f"{what}: {ours:,} here, {theirs:,} in the paper"


def _shown(value: object) -> str:
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
