"""The first screen in sentences: who is better, by how much, where, how surely, and what would change that."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipsrec_bench.errors import listed
from ipsrec_bench.report.content import Comparison, Report, RowAcross
from ipsrec_bench.report.sentences import equals, percent

MOST_ROWS = 3
"""Maximum number of rows with a statement of their own."""
NAMED = 3
"""Maximum number of datasets that a statement names with their gains; of more, it gives their number and range."""


@dataclass(frozen=True)
class Statement:
    """One statement of the first screen."""

    text: str
    section: str = ""
    """Id of the section of the page with the details."""
    title: str = ""
    """That section's title."""
    tone: str = ""
    """`better` or `worse` if the statement is that verdict on a row."""


def summary(report: Report) -> tuple[Statement, ...]:
    """Return the statements of the first screen, in the order of the page."""
    return (*_of_rows(report), *_of_fairness(report.findings), *_of_change(report))


def _of_rows(report: Report) -> Iterator[Statement]:
    """Yield a statement for each row: its verdicts by dataset, and its gain over all of them."""
    rows = report.across.rows
    section = ("across", "Over datasets") if report.across.several else ("comparisons", "Comparisons")
    for row in rows[:MOST_ROWS]:
        found = [c for c in report.findings if c.row == row.row]
        said = _on_one(found[0], row, report) if len(found) == 1 else _on_several(found, row, report)
        tones = {_verdict(c) for c in found}
        yield Statement(said, *section, tone=tones.pop() if len(tones) == 1 else "")
    more = len(rows) - MOST_ROWS
    if more > 0:
        text = f"These have the highest gains; {'one other row has' if more == 1 else f'{more} other rows have'} lower ones."
        yield Statement(text, "comparisons", "Comparisons")


def _is_of_method(c: Comparison) -> bool:
    return c.of_method != "too few seeds"


def _verdict(c: Comparison) -> str:
    """Return the verdict on the methods, or on the trained models where there are too few seeds."""
    return c.of_method if _is_of_method(c) and c.verdict != "equivalent" else c.verdict


def _p(c: Comparison) -> float | None:
    return c.adjusted_p


def _on_one(c: Comparison, row: RowAcross, report: Report) -> str:
    """Return the statement on a row that is compared on one dataset."""
    of_method, verdict = _is_of_method(c), _verdict(c)
    ours, theirs = c.row.display, c.reference.display
    if not of_method:
        ours, theirs = f"The trained {ours}", f"the trained {theirs}"
    if verdict in {"better", "worse"}:
        said = f"{ours} is {verdict} than {theirs} on {c.dataset}"
    elif verdict == "equivalent":
        assert c.margin is not None
        said = f"{ours} and {theirs} are equivalent on {c.dataset}, within {100 * c.margin:g}%"
    else:
        said = f"{ours} is not shown to differ from {theirs} on {c.dataset}"
    if of_method and not c.without_seeds:
        said += f", as a method over {c.seeds} seeds"
    said += f": {report.metric.upper()} {_with_interval(c, row, report)}. "
    return said + (f"Not compared on {', '.join(row.lacks)}." if row.lacks else "") + ("" if of_method else _trained(c))


def _with_interval(c: Comparison, row: RowAcross, report: Report) -> str:
    """Return a row's gain on the dataset of a comparison, with interval and p."""
    p = f"p {equals(_p(c))}" if _p(c) is not None else "no p-value"
    for gain in row.gains:
        if gain.dataset == c.dataset:
            test = gain.difference.test
            between = f"{100 * report.confidence:g}% interval {percent(test.low)} to {percent(test.high)}, " if gain.varies else ""
            return f"{percent(test.mean)} ({between}{p})"
    return f"{c.mean:.4f} against {c.reference_mean:.4f} ({p})"


def _trained(c: Comparison) -> str:
    seeds = "one training" if c.seeds == 1 else f"{c.seeds} trainings"
    return f"With {seeds} each, this is no claim about the methods."


def _on_several(found: Sequence[Comparison], row: RowAcross, report: Report) -> str:
    """Return the statement on a row that is compared on several datasets."""
    references = {c.reference.display for c in found}
    against = references.pop() if len(references) == 1 else "the baseline of each dataset"
    said = f"{row.row.display} against {against}: {verdicts(found)}."
    if row.pooled is not None:
        test = row.pooled.test
        said += (
            f" Over these {len(row.pooled.weights)} datasets {report.metric.upper()} {percent(test.mean)}"
            f" ({100 * report.confidence:g}% interval {percent(test.low)} to {percent(test.high)}, p {equals(test.p)})"
        )
        new = f"; a new dataset may bring {percent(row.pooled.low)} to {percent(row.pooled.high)}"
        said += f"{new if row.pooled.low == row.pooled.low else ''}."
    if row.lacks:
        said += f" Not compared on {listed(row.lacks)}."
    trained = [c for c in found if not _is_of_method(c)]
    if len(trained) == len(found):
        return f"{said} {_trained(max(trained, key=lambda c: c.seeds))}"
    return said + (f" On {listed([c.dataset for c in trained])} this is about trained models alone." if trained else "")


def verdicts(found: Iterable[Comparison]) -> str:
    """Return on which datasets a row is better, worse or neither, with its gains there."""
    words = {"better": "better", "worse": "worse", "undecided": "not shown to differ", "equivalent": "equivalent"}
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for c in found:
        groups[_verdict(c)].append(c)
    total = sum(map(len, groups.values()))
    parts = []
    for verdict, members in sorted(groups.items(), key=lambda group: [*words].index(group[0])):
        gains = [c.gain.value for c in members if c.gain is not None]
        if len(members) > NAMED and gains:
            parts.append(
                f"{words[verdict]} on {len(members)} of {total} datasets ({percent(min(gains))} to {percent(max(gains))})"
            )
        else:
            names = [f"{c.dataset} ({percent(c.gain.value)})" if c.gain else c.dataset for c in members]
            parts.append(f"{words[verdict]} on {_joined(names)}")
    return ", ".join(parts)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def of_controls(controls: Sequence[Comparison]) -> Iterator[Statement]:
    """Yield what controls say about provider information, a statement for each row.

    Args:
        controls: comparisons of a row with its twin without the information, whose display name says which control it
            is, on the report's metric.
    """
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for c in controls:
        groups[c.row.display, c.reference.display].append(c)
    for (row, twin), found in groups.items():
        shown = [_verdict(c) == "better" for c in found]
        tail = ""
        if all(shown):
            tail = " So much of its result comes from provider information."
        elif not any(shown):
            tail = " Its result is not shown to come from provider information."
        yield Statement(f"{row} against {twin}: {verdicts(found)}.{tail}", "controls", "Controls")


def _of_fairness(findings: Sequence[Comparison]) -> Iterator[Statement]:
    """Yield what favours one side of the comparisons."""
    unequal = dict.fromkeys(
        (c.row.display, c.reference.display) if c.row.tuned else (c.reference.display, c.row.display)
        for c in findings
        if c.unequal
    )
    said = [f"{tuned} is tuned and {other} is not, which favours the former." for tuned, other in unequal]
    if said:
        yield Statement(" ".join(said[:2]), "tuning", "Tuning")
    cut = list(dict.fromkeys(row.display for c in findings for row in c.cut_off))
    if cut:
        yield Statement(f"Training of {_joined(cut)} was cut off by the epoch limit and might have gone on to improve.")


def _of_change(report: Report) -> Iterator[Statement]:
    """Yield what could not have been found, and what would change the answer."""
    said = []
    blind = [c for c in report.findings if _verdict(c) == "undecided" and c.detectable is not None and c.reference_mean]
    if blind:
        shares = [c.detectable / c.reference_mean for c in blind if c.detectable is not None]
        low, high = 100 * min(shares), 100 * max(shares)
        size = f"{low:.1f}%" if len(shares) == 1 else f"{low:.1f}% to {high:.1f}%, depending on model and dataset,"
        said.append(f"Gains below {size} would have been missed more often than in one of five repetitions.")
    if not report.across.several:
        said.append("One dataset says nothing about others.")
    if said:
        yield Statement(" ".join(said), "comparisons", "Comparisons")
