"""The dashboard's view of a search: header and trials."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from ipsrec_bench.events import SearchStarted, TrialEnded
from ipsrec_bench.tui.lines import Part, about, bar, clock, facts, fit, line
from ipsrec_bench.tui.pace import remaining_seconds
from ipsrec_bench.tui.state import RunState
from ipsrec_bench.words import counted

NARROW = 72
"""Columns of a terminal below which a trial that does not fit takes two lines."""


def search_header(state: RunState, search: SearchStarted, now: float, width: int) -> list[Text]:
    """Return bar, facts and the best settings so far."""
    ended = search.ended + state.counted
    trials = f"{ended}/{search.trials} trials" if search.trials is not None else counted(ended, "trial")
    parts: dict[str, Part] = {"trials": (trials, "")}
    if search.ended:
        parts["before"] = (f"{search.ended} before this run", "")
    for outcome in ("pruned", "failed", "killed"):
        if count := sum(trial.outcome == outcome for trial in state.trials):
            parts[outcome] = (f"{count} {outcome}", "bold red" if outcome == "failed" else "")
    if state.running:
        parts["running"] = (f"{len(state.running)} running", "")
    parts["elapsed"] = (f"{clock(now - (now if state.began is None else state.began))} elapsed", "")
    if search.seconds is not None:
        parts["spent"] = (f"{clock(state.spent(now))} of {clock(search.seconds)} of training", "")
    if (left := remaining_seconds(state, now)) is not None:
        parts["left"] = (f"{about(left)} to go", "")
    shares = [ended / search.trials] if search.trials else []
    shares += [state.spent(now) / search.seconds] if search.seconds else []
    lines = [
        line(*bar([(min(1.0, max(shares, default=0.0)), "cyan")], width)),
        facts(parts, width, dispensable=("running", "before", "elapsed")),
    ]
    found = best(state, search)
    settings = "" if found is None else f"Best so far: {found[0]:.4f} with {found[1]}"
    return [*lines, line((settings, "green"))]


def best(state: RunState, search: SearchStarted) -> tuple[float, str] | None:
    """Return the best value of the study, as far as this run knows, and its settings."""
    found = [(search.best, search.best_settings)] if search.best is not None else []
    found += [(trial.value, trial.settings) for trial in state.trials if trial.value is not None]
    return max(found, key=lambda one: one[0], default=None)


def trial_lines(state: RunState, search: SearchStarted, width: int, room: int) -> list[Text]:
    """Return the newest trials in at most `room` lines."""
    if not state.trials or room < 2:  # noqa: PLR2004 (a head and a row)
        return []
    found = best(state, search)
    value = f"validation {search.metric}"
    rest = 7 + len(value) + 2 + 8 + 2 + 8
    longest = max(cell_len(trial.settings) for trial in state.trials[-room:])
    if width < NARROW and longest + rest > width:
        return _in_two_lines(state.trials[-((room - 1) // 2) or -1 :], search, width, found)
    shown = state.trials[-(room - 1) :]
    hidden = len(state.trials) - len(shown)
    head = f"settings ({hidden} earlier not shown)" if hidden else "settings"
    settings = min(max(longest, cell_len(head)), width - rest)
    lines = [line((f"{'Trial':>5}  {fit(head, settings)}  {value}{'epochs':>8}{'time':>10}", "dim"))]
    for trial in shown:
        text = f"{trial.number:>5}  {fit(trial.settings, settings)}  {fit(_outcome(trial), len(value), right=True)}"
        text += f"{trial.epochs:>8}{clock(trial.seconds):>10}"
        lines.append(line((text, _style(trial, found))))
    return lines


def _in_two_lines(
    shown: Sequence[TrialEnded], search: SearchStarted, width: int, found: tuple[float, str] | None
) -> list[Text]:
    lines = [line((f"Trials, validation {search.metric}", "dim"))]
    for trial in shown:
        lines.append(line((fit(f"{trial.number}: {trial.settings}", width).rstrip(), _style(trial, found))))
        lines.append(line(f"  {_outcome(trial)}, {clock(trial.seconds)}"))
    return lines


def _style(trial: TrialEnded, found: tuple[float, str] | None) -> str:
    if found is not None and (trial.value, trial.settings) == found:
        return "green"
    return {"complete": "", "pruned": "dim"}.get(trial.outcome, "red")


def _outcome(trial: TrialEnded) -> str:
    """Return a trial's value, or how it ended."""
    return f"{trial.value:.4f}" if trial.value is not None else trial.outcome
