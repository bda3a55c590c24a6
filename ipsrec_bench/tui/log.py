"""The plain log, for pipes and CI: one line per event that matters."""

from collections.abc import Sequence
from datetime import datetime

from ipsrec_bench.events import (
    MAIN_STAGE,
    CellEvent,
    CellFailed,
    CellFinished,
    CellFound,
    CellInterrupted,
    CellsAwaited,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    Event,
    ExecutorNotice,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    SearchStarted,
    StoreBusy,
    TrialEnded,
    WorkerEnded,
    WorkerStarted,
)
from ipsrec_bench.words import counted, visible


def plain_line(event: Event, now: datetime) -> str | None:  # noqa: C901, PLR0912, PLR0915 (one case per event)
    """Return the line for `event`, or None if it is not worth one."""
    match event:
        case DatasetReady():
            text = (
                f"{event.dataset}: {counted(event.users, 'user')}, {counted(event.items, 'item')},"
                f" {counted(event.providers, 'provider')},"
                f" {counted(event.actions, 'interaction')} ({event.seconds:.1f} s)"
            )
            text += "".join(f"; note: {note}" for note in event.notes)
        case DatasetLeftOut():
            text = f"{event.dataset}: left out: {event.reason}"
        case RunStarted():
            text = f"{event.title}: {counted(event.cells, 'cell')}, {event.skipped} already done"
        case CellStarted():
            text = f"{_name(event)}: started"
            text += f", resumed after {_resumed(event)}" if event.resumed else ""
            text += f" ({event.worker})" if event.worker else ""
        case EpochDone():
            epoch = f"epoch {event.epoch}" if event.of is None else f"{event.stage} {event.epoch}/{event.of}"
            valid = "" if event.valid is None else f" validation {event.valid:.4f},"
            text = f"{_name(event)}: {epoch}, loss {event.loss:.4f},{valid} {event.targets_per_second:.0f} targets/s"
        case CellFinished():
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
            text = f"{_name(event)}: finished in {event.seconds:.1f} s, best epoch {event.best_epoch}, {metrics}"
        case CellInterrupted():
            text = f"{_name(event)}: stopped; the next run resumes after its last epoch on disk, if there is one"
        case CellFound():
            text = f"{_name(event)}: finished by another process"
        case CellsAwaited():
            text = f"waiting: {awaited(event)}"
        case CellFailed():
            text = f"{_name(event)}: FAILED after {event.seconds:.1f} s: {event.error}"
        case SearchStarted():
            limits = [counted(event.trials, "trial")] if event.trials is not None else []
            limits += [f"{event.seconds:g} s of training"] if event.seconds is not None else []
            text = (
                f"{event.title}: {' or '.join(limits)}; {counted(event.ended, 'trial')} in {event.spent:.1f} s so far"
            )
        case TrialEnded():
            text = f"trial {event.number} ({event.settings}): {event.outcome}"
            text += f", {event.value:.4f}" if event.value is not None else ""
            text += f" after {counted(event.epochs, 'epoch')}, {event.seconds:.1f} s"
            text += f": {event.error}" if event.error else ""
        case WorkerStarted():
            threads = counted(event.threads, "thread")
            text = f"{event.worker}: ready on {event.host}, {event.device}, {threads}, process {event.pid}"
        case WorkerEnded() if event.reason:
            text = f"{event.worker}: died: {event.reason}"
        case RunPaused():
            text = "paused"
        case RunResumed():
            text = "resumed after the pause"
        case StoreBusy():
            text = f"waiting: {event.message}"
        case ExecutorNotice():
            text = f"note: {event.message}"
        case RunFinished():
            how = "interrupted" if event.interrupted else "finished"
            text = f"{how} after {event.seconds:.1f} s: {event.complete} complete, {event.failed} failed"
        case _:
            return None
    return f"{now:%Y-%m-%d %H:%M:%S} {visible(text)}"


def epoch_in_stage(stages: Sequence[tuple[str, int]], number: int, epochs: int) -> tuple[str, int, int]:
    """Return where epoch `number` of a training with `epochs` over all its stages is.

    Returns:
        The stage that it belongs to, or "" for the main one, its number in its stage, and the epochs of the stage.
    """
    before = 0
    for name, count in stages:
        if number <= before + count:
            return "" if name == MAIN_STAGE else name, number - before, count
        before += count
    return "", number - before, epochs - before


def _resumed(event: CellStarted) -> str:
    stage, number, count = epoch_in_stage(event.stages, event.resumed, event.epochs)
    return f"{stage} {number}/{count}" if stage else f"epoch {number}"


def awaited(event: CellsAwaited) -> str:
    """Return what the run waits for."""
    what = "the last cell is" if event.cells == 1 else f"the last {event.cells} cells are"
    return f"{what} being trained by another run on this store"


def _name(event: CellEvent) -> str:
    return f"{event.dataset}, {event.label}, seed {event.seed}"
