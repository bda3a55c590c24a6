"""The first screen in sentences: who is better, by how much, where, how surely, and what would change that."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipsrec_bench.report.content import Comparison, Report, RowAcross
from ipsrec_bench.report.sentences import has_seeds_needed, of_interest, p_value, percent, trainings, with_trainings
from ipsrec_bench.words import joined

MOST_ROWS = 3
"""Maximum number of rows with a statement of their own."""
CONTROLS = ("controls", "Controls")
"""Section of the controls."""
WITHOUT_INFORMATION = ("shuffled providers", "one provider")
"""Controls whose providers say nothing."""
PAIRS = 2
"""Maximum number of pairs that are named because only one of both is tuned."""
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
    controlled = [*of_controls(controls)]
    more = len(controlled) - MOST_ROWS
    if more > 0:
        others = "One other control is" if more == 1 else f"{more} other controls are"
        controlled[MOST_ROWS:] = [Statement(f"{others} not listed here.", *CONTROLS)]
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


def _is_declared(c: Comparison) -> bool:
    """Return whether the declared test answers for the methods, or is all there is; else that of the methods does."""
    return c.method is None or c.without_seeds or c.test == "method"


def _verdict(c: Comparison) -> str:
    """Return the verdict on the methods or, where there are too few seeds, on the trained models."""
    return c.verdict if _is_declared(c) else c.of_method


def _p(c: Comparison) -> str:
    """Return the p-value of the verdict, after its name."""
    value = c.adjusted_p if _is_declared(c) else c.adjusted_method_p
    if _verdict(c) == "equivalent":
        value = c.equivalence_p
    if value is None:
        return "no p-value"
    named = f"{_equals('p', value)}, not corrected" if c.family == 1 else _equals("adjusted p", value)
    return f"{named}, not below {c.alpha:g}" if _verdict(c) == "undecided" else named


def _equals(name: str, p: float) -> str:
    """Return a p-value after its name."""
    shown = p_value(p)
    return f"{name} {'' if shown.startswith('<') else '= '}{shown}"


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
    said += _lacking(row)
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


def _lacking(row: RowAcross) -> str:
    """Return on which datasets a row has no gain and why, after a space; empty if it has one on all."""
    said = f" Not compared on {joined(row.lacks)}." if row.lacks else ""
    return said + (f" No gain on {joined(row.undefined)}: the baseline's mean is 0." if row.undefined else "")


def _trained(found: Sequence[Comparison]) -> str:
    return f"{with_trainings(found)}, this is no claim about the methods."


def _on_several(found: Sequence[Comparison], row: RowAcross, report: Report) -> str:
    """Return the statement on a row that is compared on several datasets."""
    references = {c.reference.display for c in found}
    against = references.pop() if len(references) == 1 else "the baseline of each dataset"
    said = f"{row.row.display} against {against}: {verdicts(found)}."
    if row.pooled is not None:
        test = row.pooled.test
        said += (
            f" Over {_pooled(row)} {report.metric.upper()} {percent(test.mean)}"
            f" ({_interval(test.low, test.high, report)}, {_equals('p', test.p)}, not corrected)"
        )
        if not math.isnan(row.pooled.low):
            said += f"; a new dataset may bring {percent(row.pooled.low)} to {percent(row.pooled.high)}"
        said += "."
    said += _lacking(row)
    few = [c for c in found if not _is_of_method(c)]
    if len(few) == len(found):
        return f"{said} {_trained(few)}"
    return said + (f" On {joined([c.dataset for c in few])} this is about trained models alone." if few else "")


def _pooled(row: RowAcross) -> str:
    """Return the datasets of a row's pooled gain, and those that are not among them."""
    number = len(row.gains) - len(row.unpooled)
    if not row.unpooled:
        return f"these {number} datasets"
    return f"the {number} datasets other than {joined(row.unpooled)}, where the gain has no error,"


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
            parts.append(f"{words[verdict]} on {joined(names)}")
    return ", ".join(parts)


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
        yield Statement(f"{row} against {twin}: {verdicts(found)}.{tail}", *CONTROLS)


def _of_fairness(report: Report) -> Iterator[Statement]:
    """Yield what favours one side of the comparisons: budgets of searches, and trainings that were cut off."""
    findings, section = report.findings, ("fairness", "How fair was this")
    unequal = dict.fromkeys(
        (c.row.display, c.reference.display) if c.row.tuned else (c.reference.display, c.row.display)
        for c in findings
        if c.unequal
    )
    said = [f"{tuned} is tuned and {other} is not, which favours the former." for tuned, other in [*unequal][:PAIRS]]
    more = len(unequal) - PAIRS
    if more > 0:
        said.append(f"So it is with {'one other pair' if more == 1 else f'{more} other pairs'}.")
    if not unequal and report.fairness.not_tuned:
        said.append(f"{report.fairness.not_tuned}.")
    if report.fairness.unequal:
        where = joined(report.fairness.unequal)
        said.append(f"Budgets of searches were not equal on {where}, which favours the rows that got more.")
    said = said or [f"{sentence}." for sentence in report.fairness.first]
    if said:
        yield Statement(" ".join(said), *section)
    cut: dict[str, dict[str, None]] = {}
    for c in findings:
        for row in c.cut_off:
            cut.setdefault(row.display, {})[c.dataset] = None
    if cut:
        rows = joined([f"{row} on {_places([*datasets])}" for row, datasets in cut.items()])
        yield Statement(f"Training of {rows} was cut off by the epoch limit and might have gone on to improve.")


def _places(datasets: Sequence[str]) -> str:
    """Return the names of datasets as a list in a sentence; their number if there are many."""
    return joined(datasets) if len(datasets) <= NAMED else f"{len(datasets)} datasets"


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
    size = of_interest(known[0][0])
    wanted = [(c, seeds) for c, seeds in known if seeds is not None and not has_seeds_needed(c)]
    if wanted:
        numbers = [seeds for _, seeds in wanted]
        many = f"{min(numbers):,} to {max(numbers):,}, by model and dataset"
        named = joined([f"{seeds:,} for {_name(c, undecided)}" for c, seeds in wanted])
        yield f"Seeds of each model that would show {size}: {many if len(wanted) > NAMED else named}."
    if there := [c for c, _ in known if has_seeds_needed(c)]:
        yield f"For {_names(there, undecided)} these seeds already suffice to show {size}."
    if hopeless := [c for c, seeds in known if seeds is None]:
        yield f"For {_names(hopeless, undecided)} it takes more users: no number of seeds would show {size}."


def _names(chosen: Sequence[Comparison], among: Sequence[Comparison]) -> str:
    return f"{len(chosen)} comparisons" if len(chosen) > NAMED else joined([_name(c, among) for c in chosen])


def _name(c: Comparison, among: Sequence[Comparison]) -> str:
    several = len({other.dataset for other in among}) > 1
    return f"{c.row.display} on {c.dataset}" if several else c.row.display


def _smallest(undecided: Sequence[Comparison]) -> Iterator[str]:
    """Yield which gains are found by the tests of the verdicts."""
    sizes = [(c, c.detectable if _is_declared(c) else c.method_detectable) for c in undecided]
    found = [size / c.reference_mean for c, size in sizes if size is not None and c.reference_mean]
    if found:
        low, high = f"{100 * min(found):.1f}%", f"{100 * max(found):.1f}%"
        size = low if low == high else f"{low} to {high}, by model and dataset,"
        yield f"Gains of {size} are found with a power of 80%; smaller ones may have been missed."


def _once_more(findings: Sequence[Comparison]) -> Iterator[str]:
    """Yield how probable it is that one more training of each row has the same winner.

    Of more comparisons than `NAMED`, the one with the lowest probability is named.
    """
    chances = [
        (c, c.next_training.probability if c.difference > 0 else 1 - c.next_training.probability)
        for c in findings
        if _verdict(c) in {"better", "worse"} and c.next_training is not None
    ]
    if 0 < len(chances) <= NAMED:
        yield f"In one more training of both, {joined([_again(*one) for one in chances])}."
    elif chances:
        least = min(chances, key=lambda one: one[1])
        yield f"In one more training of both, the least sure of {len(chances)} winners is this one: {_again(*least)}."


def _again(c: Comparison, chance: float) -> str:
    """Return the winner of a comparison, its dataset, and how probable it is that the winner wins again."""
    winner, other = (c.row, c.reference) if c.difference > 0 else (c.reference, c.row)
    return f"{winner.display} beats {other.display} on {c.dataset} again with a probability of {chance:.2f}"
