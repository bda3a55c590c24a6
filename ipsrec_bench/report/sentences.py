"""Sentences about comparisons, searches, slices and failed cells."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from ipsrec_bench.report.content import Comparison, CutOff, MissingCell, SliceTable, Tuned
from ipsrec_bench.settings import in_words
from ipsrec_bench.stats.differences import DECIMALS
from ipsrec_bench.stats.effect import Estimate
from ipsrec_bench.store.records import Environment
from ipsrec_bench.words import counted

SMALLEST_P = 1e-4
EQUAL = 1.2
"""Ratio of search times up to which they count as equal: a search ends only after the trial that spends its budget."""
LISTED = 4
"""Maximum number of slices that are named rather than counted."""


def p_value(value: float | None) -> str:
    """Return a p-value, or `< 0.0001`, or a dash where there is none."""
    if value is None:
        return "–"
    return "< 0.0001" if value < SMALLEST_P else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Return a relative difference with its sign."""
    return "–" if value is None else f"{100 * _plain_zero(value):+.1f}%"


def signed(value: float) -> str:
    """Return a difference of a metric with its sign."""
    return f"{_plain_zero(value):+.4f}"


def _plain_zero(value: float) -> float:
    """Return `value` rounded, with negative zero as 0."""
    return round(value, DECIMALS) + 0.0


def between(low: float, high: float, shown: Callable[[float], str] = signed) -> str:
    """Return an interval, or a dash where nothing varied."""
    return "–" if math.isnan(low) else f"{shown(low)} to {shown(high)}"


def effect(value: float) -> str:
    """Return d_z, or a dash where nothing varied."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def span(estimate: Estimate | None) -> str:
    """Return the interval of a relative difference."""
    if estimate is None or math.isnan(estimate.low):
        return "–"
    if math.isinf(estimate.low):
        return "unbounded"
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


def finding(c: Comparison, confidence: float) -> str:
    """Return a comparison in words: which row is better, by how much and how surely, as a method and as a model."""
    varies = not math.isnan(c.low)
    interval = f"{100 * confidence:g}% interval {between(c.low, c.high)}" if varies else "the same for every user"
    values = f"{c.metric.upper()} {c.mean:.4f} against {c.reference_mean:.4f}, {signed(c.difference)} ({interval})"
    if c.gain is not None:
        values += f" or {percent(c.gain.value)}"
    test = corrected(c, c.adjusted_p)
    if c.adjusted_p is None:
        verdict = f"{c.row.display} against {c.reference.display} on {c.dataset}: the declared test needs three seeds"
        test = "no p-value"
    elif c.significant:
        verdict = f"{c.row.display} is {c.verdict.split(',')[0]} than {c.reference.display} on {c.dataset}"
        verdict += f", but within the margin of {_margin(c)}" if c.within_margin else ""
    elif c.direction == "equivalent":
        verdict = f"{c.row.display} and {c.reference.display} are equivalent on {c.dataset}, within {_margin(c)}"
        test = f"{corrected(c, c.equivalence_p)} (two one-sided tests)"
    else:
        verdict = f"No difference between {c.row.display} and {c.reference.display} is shown on {c.dataset}"
        if c.detectable is not None:
            test += f"; a t-test finds a difference of {c.detectable:.4f} with a power of 80%"
        elif varies:
            over = f"{c.users:,} users" + (f" and {trainings(c)}" if c.test == "method" else "")
            test += f"; over {over} a t-test finds no difference with a power of 80%, however large"
    return f"{verdict}: {values}; {test}. {''.join(filter(None, _remarks(c))).strip()}"


def corrected(c: Comparison, p: float | None) -> str:
    """Return a p-value and the size of the family that it is corrected over, if it is."""
    if c.family == 1:
        return f"p {_equals(p)}, not corrected"
    return f"adjusted p {_equals(p)}, one of {c.family} comparisons"


def trainings(c: Comparison) -> str:
    """Return the number of trainings of both rows, like `3 seeds each`."""
    if c.without_seeds:
        return "no seeds"
    counts = _counts(c)
    if len(counts) == 1 or counts[0] != counts[1]:
        words = " and ".join(map(str, counts))
        return f"{words} {'seed' if counts == [1] else 'seeds'}"
    return f"{counts[0]} {'seed' if counts[0] == 1 else 'seeds'} each"


def with_trainings(found: Sequence[Comparison]) -> str:
    """Return how many trainings the rows of these comparisons have, like `With one training of each`."""
    counts = sorted({seeds for c in found for seeds in _counts(c)})
    each = "" if len(counts) > 1 or any(c.deterministic for c in found) else " of each"
    several = " and ".join(map(str, counts)) if len(counts) < 3 else f"{counts[0]} to {counts[-1]}"  # noqa: PLR2004
    return f"With {'one training' if counts == [1] else f'{several} trainings'}{each}"


def _counts(c: Comparison) -> list[int]:
    """Return the number of trainings of each row that is not deterministic."""
    return [seeds for row, seeds in ((c.row, c.seeds), (c.reference, c.reference_seeds)) if row not in c.deterministic]


def of_interest(c: Comparison) -> str:
    """Return the difference that `c.seeds_needed` is for, in words."""
    if c.margin is None:
        return "a difference as large as the one found"
    return f"a difference as large as the margin of {100 * c.margin:g}%"


def has_seeds_needed(c: Comparison) -> bool:
    """Return whether both rows already have the seeds that the comparison of the methods needs."""
    needed = c.seeds_needed.seeds if c.seeds_needed is not None else None
    return needed is not None and needed <= min(_counts(c))


def probabilities(c: Comparison) -> str:
    """Return how probable it is that the difference is below, within and above the margin; a dash without margin."""
    p = c.practical
    return "–" if p is None else f"{p.worse:.2f} / {p.same:.2f} / {p.better:.2f}"


def needed(c: Comparison) -> str:
    """Return the number of seeds that the comparison of the methods needs; a dash where none vary or it is unknown."""
    if c.seeds_needed is None:
        return "–"
    return "more users" if c.seeds_needed.seeds is None else f"{c.seeds_needed.seeds:,}"


def _margin(c: Comparison) -> str:
    assert c.margin is not None
    return f"±{100 * c.margin:g}%"


def _remarks(c: Comparison) -> Iterator[str]:
    """Yield further sentences about a comparison, each after a space."""
    yield f" {_of_method(c)}"
    if c.practical is not None:
        yield f" Probability that the true difference is worse, within {_margin(c)}, better: {probabilities(c)}."
    yield _of_seeds(c)
    yield _of_tuning(c)
    yield _of_training(c)


def cut_off(lines: Iterable[CutOff]) -> Iterator[str]:
    """Yield for each row and epoch limit how many trainings were cut off, and on which datasets or conditions."""
    rows: dict[tuple[str, int], list[CutOff]] = {}
    for line in lines:
        rows.setdefault((line.row.display, line.epochs), []).append(line)
    for (row, epochs), found in rows.items():
        cells, of = sum(line.cells for line in found), sum(line.of for line in found)
        best = "its best epoch" if of == 1 else "their best epoch"
        cut = f"{cells} of {counted(of, 'training')} had {best} at the limit ({epochs}) and might have improved further"
        if len(found) == 1:
            yield f"{row} on {found[0].dataset}: {cut}; raise training.epochs"
        else:
            places = "; ".join(f"{line.dataset} ({line.cells} of {line.of})" for line in found)
            yield f"{row}: {cut}; raise training.epochs. They are on {places}"


def seeds_wanted(c: Comparison) -> str:
    """Return how many seeds the comparison of two methods needs, by what is known of it; `c.seeds_needed` is known."""
    assert c.seeds_needed is not None
    pair = f"{c.row.display} against {c.reference.display} on {c.dataset} ({c.metric.upper()}, {trainings(c)} so far)"
    wanted = of_interest(c) if c.margin else f"the difference found, {signed(c.difference)},"
    if c.seeds_needed.seeds is None:
        return f"{pair}: {_more_users(wanted, c.seeds_needed.floor)}."
    if has_seeds_needed(c):
        return f"{pair}: these seeds already suffice to show {wanted} with a power of 80%."
    return f"{pair}: about {c.seeds_needed.seeds:,} seeds each show {wanted} with a power of 80%."


def _more_users(wanted: str, floor: float) -> str:
    """Return that more seeds do not suffice for a comparison, as a clause."""
    return f"more seeds alone cannot show {wanted}: with these users, only differences from {floor:.4f} on can be shown"


def _of_tuning(c: Comparison) -> str:
    if not c.unequal:
        return ""
    tuned, other = (c.row, c.reference) if c.row.tuned else (c.reference, c.row)
    return f" {tuned.display} is tuned and {other.display} is not, which favours the former."


def _of_training(c: Comparison) -> str:
    if not c.cut_off:
        return ""
    rows = " and ".join(row.display for row in c.cut_off)
    return f" Training of {rows} was cut off by the epoch limit, so this does not compare fully trained models."


def _of_method(c: Comparison) -> str:
    if c.without_seeds:
        return "Both models are deterministic, so this is also the comparison of the methods."
    if c.method is None:
        return f"{with_trainings([c])}, no claim about the methods is possible, only about these trained models."
    over = f"over {trainings(c)} and {c.users:,} users"
    if c.test == "method":
        return f"This is about the methods, {over}.{_of_models(c)}"
    p = f"{corrected(c, c.adjusted_method_p)}, {over}"
    if c.of_method == "undecided":
        return f"A difference between the methods, across seeds, is not shown: {p}."
    too = ", too" if c.of_method == c.verdict else ""
    return f"As a method, across seeds, it is {c.of_method.split(',')[0]}{too}: {p}."


def _of_models(c: Comparison) -> str:
    """Return what holds for the trained models, after a verdict on the methods; empty if it is the same."""
    if c.of_models == c.of_method:
        return ""
    p = corrected(c, c.adjusted_users_p)
    if c.of_models == "undecided":
        return f" These trained models alone are not shown to differ: {p}."
    return f" Only these trained models are shown to differ, {c.of_models.split(',')[0]}: {p}."


def _of_seeds(c: Comparison) -> str:
    """Return what a comparison without a verdict on the methods needs; empty where nothing is to be said."""
    if c.seeds_needed is None or c.of_method != "undecided" or (c.test == "method" and c.verdict == "equivalent"):
        return ""
    wanted = of_interest(c)
    if has_seeds_needed(c):
        return f" These seeds already suffice to show {wanted} with a power of 80%."
    if c.seeds_needed.seeds is None:
        said = _more_users(wanted, c.seeds_needed.floor)
        return f" {said[:1].upper()}{said[1:]}."
    return f" About {c.seeds_needed.seeds:,} seeds each would show {wanted} with a power of 80%."


def missing(cell: MissingCell) -> str:
    """Return why a cell has no result."""
    if cell.error is None:
        return "not run yet"
    return f"failed after {cell.seconds:,.1f} s: {cell.error}" if cell.seconds is not None else f"failed: {cell.error}"


def environment(e: Environment) -> str:
    """Return the software and the machine that cells ran on."""
    revision = f" at {e.revision}" if e.revision else ""
    return (
        f"ipsrec-bench {e.package}{revision}, Python {e.python}, torch {e.torch}, numpy {e.numpy}, duckdb {e.duckdb};"
        f" {e.platform}; {e.processor}, {counted(e.cores, 'core')}, {counted(e.threads, 'thread')}, device {e.device}"
    )


def tuned_finding(tuned: Tuned, confidence: float, alpha: float) -> str:
    """Return the result of a search in words, and whether its gain is shown to be more than luck."""
    unknown = "" if tuned.study.fixed is not None else " The study did not record the settings that it did not search."
    return _found(tuned, confidence, alpha) + unknown


def _found(tuned: Tuned, confidence: float, alpha: float) -> str:
    study, best, default = tuned.study, tuned.study.best, tuned.study.default_trial
    subject = f"{study.model} on {study.dataset}"
    if best is None:
        return f"{subject}: no trial has been trained to its end."
    found = (
        f"{subject}: the best of {counted(len(study.trials), 'trial')} has {in_words(best.settings)}, validation"
        f" {study.metric.upper()} {best.value:.4f}"
    )
    if best.settings == study.default:
        return f"{found}: these are the settings before."
    before = f"the settings before ({in_words(study.default)})"
    if default is None or default.pruned:
        return f"{found}; {before} were {'given up' if default else 'not tried'}. {_fresh(tuned, confidence)}"
    found += f" against {default.value:.4f} of {before}"
    if tuned.gain is None:
        trainings = "One training each" if len(study.seeds) == 1 else "Seeds that all give the same difference"
        return f"{found}. {trainings} cannot show that this is more than luck. {_fresh(tuned, confidence)}"
    gain, p = tuned.gain, tuned.adjusted_p
    assert p is not None
    shown = "is more than luck" if p < alpha else "is not shown to be more than luck"
    return (
        f"{found}: {signed(gain.mean)} over {counted(len(study.seeds), 'seed')} ({100 * confidence:g}% interval"
        f" {between(gain.low, gain.high)}, of this pair alone)."
        f" As the best of {counted(len(study.complete), 'complete trial')} it"
        f" {shown}: p {_equals(p)}, corrected for the trials that it was chosen among."
        f" {_fresh(tuned, confidence)}"
    )


def _fresh(tuned: Tuned, confidence: float) -> str:
    if tuned.fresh is None and tuned.trained:
        return "This run has the best settings on test targets and fresh seeds, but not those before, to compare with."
    if tuned.fresh is None:
        return (
            "This run does not compare them on test targets and fresh seeds; the suite that the command tune writes"
            " after a search does."
        )
    return f"On test targets, with seeds that no trial had: {finding(tuned.fresh, confidence)}"


def budgets(studies: Sequence[Tuned]) -> str:
    """Return the budget of each model's searches, and whether budgets on one dataset are unequal."""
    said = []
    for dataset in dict.fromkeys(tuned.study.dataset for tuned in studies):
        trials: dict[str, int] = defaultdict(int)
        seconds: dict[str, float] = defaultdict(float)
        for study in (tuned.study for tuned in studies if tuned.study.dataset == dataset):
            trials[study.model] += len(study.trials)
            seconds[study.model] += study.seconds
        given = "; ".join(
            f"{model} {counted(trials[model], 'trial')}, {seconds[model]:.0f} s of training" for model in trials
        )
        said.append(f"{dataset}: {given}.")
        rest = {one.study.model for one in studies if one.study.dataset == dataset and not one.study.exhausted}
        fewer = any(trials[model] < max(trials.values()) for model in rest)
        if fewer and any(max(seconds.values()) > EQUAL * seconds[model] for model in rest):
            said.append("These budgets are not equal, which favours the models that got more.")
    return " ".join(said)


def where(table: SliceTable) -> str:
    """Return in which slices a row is better, worse or neither; of the longest list, only a count if it is long."""
    groups = {
        "Better": table.named("better"),
        "Worse": table.named("worse"),
        "Better, within the margin": table.named("better, within the margin"),
        "Worse, within the margin": table.named("worse, within the margin"),
        "Not shown to differ": table.named("undecided"),
        "Equivalent": table.named("equivalent"),
    }
    most = max(groups.values(), key=len)
    parts = []
    for word, names in groups.items():
        if names is most and len(names) > LISTED:
            parts.append(f"{word} in {len(names)} of {len(table.slices)} slices.")
        elif names:
            parts.append(f"{word}: {'; '.join(names)}.")
    if table.everybody:
        parts.append(f"All test users are in: {'; '.join(table.everybody)}.")
    if table.too_small:
        parts.append(f"Too few users to compare: {'; '.join(table.too_small)}.")
    return " ".join(parts)


def _equals(p: float | None) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
