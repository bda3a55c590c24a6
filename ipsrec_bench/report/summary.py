"""The first screen in sentences: who is better, by how much, where, how surely, and what would change that."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipsrec_bench.report.content import Comparison, Report, Row, RowAcross
from ipsrec_bench.report.sentences import p_value, percent, trainings

MOST_ROWS = 3
"""Maximum number of rows with a statement of their own."""
WITHOUT_INFORMATION = ("shuffled providers", "one provider")
"""Controls whose providers say nothing."""
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
    rows = {row.row for row in report.across.rows}
    controls = [c for c in report.controls if c.metric == report.metric]
    controls = [c for c in controls if c.row in rows] or controls
    controlled = [*of_controls(controls)][:MOST_ROWS]
    return (*_of_rows(report), *controlled, *_of_fairness(report), *_of_change(report))


def _of_rows(report: Report) -> Iterator[Statement]:
    """Yield a statement for each row: its verdicts by dataset, and its gain over all of them."""
    rows = report.across.rows
    section = ("across", "Over datasets") if report.across.several else ("comparisons", "Comparisons")
    for row in rows[:MOST_ROWS]:
        found = [c for c in report.findings if c.row == row.row]
        said = _on_one(found[0], row, report) if len(found) == 1 else _on_several(found, row, report)
        tones = {_verdict(c) for c in found}
        yield Statement(said, *section, tone=tones.pop() if tones in ({"better"}, {"worse"}) else "")
    more = len(rows) - MOST_ROWS
    if more > 0:
        others = "one other row has a lower one" if more == 1 else f"{more} other rows have lower ones"
        yield Statement(f"These have the highest gains; {others}.", "comparisons", "Comparisons")


def _is_of_method(c: Comparison) -> bool:
    return c.method is not None or c.without_seeds


def _verdict(c: Comparison) -> str:
    """Return the verdict on the methods or, where there are too few seeds, on the trained models."""
    if c.method is None:
        return c.verdict
    is_equivalent = c.of_method == "undecided" and c.test == "method" and c.verdict == "equivalent"
    return "equivalent" if is_equivalent else c.of_method


def _p(c: Comparison) -> str:
    """Return the p-value of the verdict, after its name."""
    if _verdict(c) == "equivalent" and c.equivalence_p is not None:
        value: float | None = c.equivalence_p
    else:
        value = c.adjusted_p if c.method is None else c.adjusted_method_p
    if value is None:
        return "no p-value"
    shown = p_value(value)
    above = f", not below {c.alpha:g}" if _verdict(c) == "undecided" else ""
    return f"{'p' if c.family == 1 else 'adjusted p'} {'' if shown.startswith('<') else '= '}{shown}{above}"


def _on_one(c: Comparison, row: RowAcross, report: Report) -> str:
    """Return the statement on a row that is compared on one dataset."""
    verdict, ours, theirs = _verdict(c), c.row.display, c.reference.display
    if not _is_of_method(c):
        ours, theirs = f"The trained {ours}", f"the trained {theirs}"
    if verdict.startswith(("better", "worse")):
        said = f"{ours} is {verdict.partition(',')[0]} than {theirs} on {c.dataset}"
        said += f", but within the margin of {100 * (c.margin or 0):g}%" if c.within_margin else ""
    elif verdict == "equivalent":
        assert c.margin is not None
        said = f"{ours} and {theirs} differ by less than the margin of {100 * c.margin:g}% on {c.dataset}"
    else:
        said = f"{ours} is not shown to differ from {theirs} on {c.dataset}"
    if c.method is not None and not c.without_seeds:
        said += f", as a method over {trainings(c)}"
    said += f": {report.metric.upper()} {_with_interval(c, row, report)}."
    if row.lacks:
        said += f" Not compared on {_joined(row.lacks)}."
    return said if _is_of_method(c) else f"{said} {_trained([c])}"


def _with_interval(c: Comparison, row: RowAcross, report: Report) -> str:
    """Return a row's gain on the dataset of a comparison, with interval and p."""
    for gain in row.gains:
        if gain.dataset == c.dataset:
            test = gain.difference.test
            between = f"{_interval(test.low, test.high, report)}, " if gain.varies else ""
            return f"{percent(test.mean)} ({between}{_p(c)})"
    return f"{c.mean:.4f} against {c.reference_mean:.4f} ({_p(c)})"


def _interval(low: float, high: float, report: Report) -> str:
    return f"{100 * report.confidence:g}% interval {percent(low)} to {percent(high)}"


def _trained(found: Sequence[Comparison]) -> str:
    seeds = max(min(seeds for row, seeds in _sides(c) if row not in c.deterministic) for c in found)
    return f"With {'one training' if seeds == 1 else f'{seeds} trainings'} each, this is no claim about the methods."


def _sides(c: Comparison) -> tuple[tuple[Row, int], tuple[Row, int]]:
    return ((c.row, c.seeds), (c.reference, c.reference_seeds))


def _on_several(found: Sequence[Comparison], row: RowAcross, report: Report) -> str:
    """Return the statement on a row that is compared on several datasets."""
    references = {c.reference.display for c in found}
    against = references.pop() if len(references) == 1 else "the baseline of each dataset"
    said = f"{row.row.display} against {against}: {verdicts(found)}."
    if row.pooled is not None:
        test = row.pooled.test
        shown = p_value(test.p)
        said += (
            f" Over {_pooled(row)} {report.metric.upper()} {percent(test.mean)}"
            f" ({_interval(test.low, test.high, report)}, p {'' if shown.startswith('<') else '= '}{shown})"
        )
        if not math.isnan(row.pooled.low):
            said += f"; a new dataset may bring {percent(row.pooled.low)} to {percent(row.pooled.high)}"
        said += "."
    if row.lacks:
        said += f" Not compared on {_joined(row.lacks)}."
    few = [c for c in found if not _is_of_method(c)]
    if len(few) == len(found):
        return f"{said} {_trained(few)}"
    return said + (f" On {_joined([c.dataset for c in few])} this is about trained models alone." if few else "")


def _pooled(row: RowAcross) -> str:
    """Return the datasets of a row's pooled gain, and those that are not among them."""
    number = len(row.gains) - len(row.unpooled)
    if not row.unpooled:
        return f"these {number} datasets"
    return f"the {number} datasets other than {_joined(row.unpooled)}, where the gain has no error,"


def verdicts(found: Iterable[Comparison]) -> str:
    """Return on which datasets a row is better, worse or neither, with its gains there."""
    words = {
        "better": "better",
        "better, within the margin": "better, but within the margin,",
        "worse": "worse",
        "worse, within the margin": "worse, but within the margin,",
        "equivalent": "the same up to the margin",
        "undecided": "not shown to differ",
    }
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for c in found:
        groups[_verdict(c)].append(c)
    total = sum(map(len, groups.values()))
    parts = []
    for verdict, members in sorted(groups.items(), key=lambda group: [*words].index(group[0])):
        gains = [c.gain.value for c in members if c.gain is not None]
        if len(members) > NAMED and gains:
            ends = f"{percent(min(gains))} to {percent(max(gains))}"
            parts.append(f"{words[verdict]} on {len(members)} of {total} datasets ({ends})")
        else:
            names = [f"{c.dataset} ({percent(c.gain.value)})" if c.gain else c.dataset for c in members]
            parts.append(f"{words[verdict]} on {_joined(names)}")
    return ", ".join(parts)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def of_controls(controls: Sequence[Comparison]) -> Iterator[Statement]:
    """Yield what controls say about provider information, a statement for each row.

    Args:
        controls: comparisons of a row with its twin, on the report's metric.
    """
    groups: dict[tuple[str, str, str], list[Comparison]] = defaultdict(list)
    for c in controls:
        groups[c.row.display, c.reference.display, c.reference.control].append(c)
    for (row, twin, control), found in groups.items():
        shown = [_verdict(c) == "better" for c in found]
        tail = ""
        if not all(map(_is_of_method, found)):
            tail = f" {_trained([c for c in found if not _is_of_method(c)])}"
        elif control in WITHOUT_INFORMATION and all(shown):
            tail = " So much of its result comes from provider information."
        elif control in WITHOUT_INFORMATION and not any(shown):
            tail = " Its result is not shown to come from provider information."
        yield Statement(f"{row} against {twin}: {verdicts(found)}.{tail}", "controls", "Controls")


def _of_fairness(report: Report) -> Iterator[Statement]:
    """Yield what favours one side of the comparisons: budgets of searches, and trainings that were cut off."""
    findings, section = report.findings, ("fairness", "How fair was this")
    unequal = dict.fromkeys(
        (c.row.display, c.reference.display) if c.row.tuned else (c.reference.display, c.row.display)
        for c in findings
        if c.unequal
    )
    said = [f"{tuned} is tuned and {other} is not, which favours the former." for tuned, other in unequal]
    said = said[:2] or [f"{sentence}." for sentence in report.fairness.sentences[:1]]
    if said:
        yield Statement(" ".join(said), *section)
    cut = list(dict.fromkeys(row.display for c in findings for row in c.cut_off))
    if cut:
        yield Statement(f"Training of {_joined(cut)} was cut off by the epoch limit and might have gone on to improve.")


def _of_change(report: Report) -> Iterator[Statement]:
    """Yield what would change the answer: seeds, one more training, smaller differences, other datasets."""
    undecided = [c for c in report.findings if _verdict(c) == "undecided"]
    said = [*_seeds(undecided), *_smallest(undecided), *_once_more(report.findings)]
    if not report.across.several:
        said.append("One dataset says nothing about others.")
    if said:
        yield Statement(" ".join(said), "comparisons", "Comparisons")


def _seeds(undecided: Sequence[Comparison]) -> Iterator[str]:
    """Yield how many seeds would show the difference, for the comparisons that are undecided."""
    known = [(c, c.seeds_needed.seeds) for c in undecided if c.seeds_needed is not None]
    if not known:
        return
    size = "the margin" if known[0][0].margin is not None else "the difference found"
    enough = sorted(seeds for _, seeds in known if seeds is not None)
    named = [f"{seeds:,} for {_name(c, undecided)}" for c, seeds in known if seeds is not None]
    hopeless = [_name(c, undecided) for c, seeds in known if seeds is None]
    if enough:
        many = f"{enough[0]:,} to {enough[-1]:,}, by model and dataset"
        yield f"Seeds of each model that would show {size}: {many if len(enough) > NAMED else _joined(named)}."
    if hopeless:
        where = f"{len(hopeless)} comparisons" if len(hopeless) > NAMED else _joined(hopeless)
        yield f"For {where} it takes more users: no number of seeds would show {size}."


def _name(c: Comparison, among: Sequence[Comparison]) -> str:
    several = len({other.dataset for other in among}) > 1
    return f"{c.row.display} on {c.dataset}" if several else c.row.display


def _smallest(undecided: Sequence[Comparison]) -> Iterator[str]:
    """Yield which gains the declared test finds."""
    found = [c.detectable / c.reference_mean for c in undecided if c.detectable is not None and c.reference_mean]
    if found:
        low, high = f"{100 * min(found):.1f}%", f"{100 * max(found):.1f}%"
        size = low if low == high else f"{low} to {high}, by model and dataset,"
        yield f"Gains of {size} are found with a power of 80%; smaller ones may have been missed."


def _once_more(findings: Sequence[Comparison]) -> Iterator[str]:
    """Yield how probable it is that one more training of each row has the same winner."""
    shown = [c for c in findings if _verdict(c) in {"better", "worse"} and c.next_training is not None]
    chances = [
        c.next_training.probability if c.difference > 0 else 1 - c.next_training.probability
        for c in shown
        if c.next_training is not None
    ]
    if chances:
        low, high = f"{min(chances):.2f}", f"{max(chances):.2f}"
        yield (
            "One more training of both would have the same winner with a probability of"
            f" {low if low == high else f'{low} to {high}'}."
        )
