"""The plain log, for pipes and CI: one line per event that matters."""

from datetime import datetime

from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellPruned,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    Event,
    RunFinished,
    RunStarted,
    StoreBusy,
)


def plain_line(event: Event, now: datetime) -> str | None:
    """Return the line for `event`, or None if it is not worth one."""
    match event:
        case DatasetReady():
            text = (
                f"{event.dataset}: {event.users} users, {event.items} items, {event.providers} providers,"
                f" {event.actions} interactions ({event.seconds:.1f} s)"
            )
        case DatasetLeftOut():
            text = f"{event.dataset}: left out: {event.reason}"
        case RunStarted():
            text = f"{event.title}: {event.cells} cells, {event.skipped} already done"
        case CellStarted():
            text = f"{_name(event)}: started"
        case EpochDone():
            text = (
                f"{_name(event)}: epoch {event.epoch}, loss {event.loss:.4f}, validation {event.valid:.4f},"
                f" {event.targets_per_second:.0f} targets/s"
            )
        case CellFinished():
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
            text = f"{_name(event)}: finished in {event.seconds:.1f} s, best epoch {event.best_epoch}, {metrics}"
        case CellFailed() | CellPruned():
            error = f": {event.error}" if isinstance(event, CellFailed) else ""
            text = f"{_name(event)}: {'FAILED' if error else 'pruned'} after {event.seconds:.1f} s{error}"
        case StoreBusy():
            text = f"waiting: {event.message}"
        case RunFinished():
            how = "interrupted" if event.interrupted else "finished"
            text = f"{how} after {event.seconds:.1f} s: {event.complete} complete, {event.failed} failed"
        case _:
            return None
    return f"{now:%Y-%m-%d %H:%M:%S} {text}"


def _name(event: CellStarted | EpochDone | CellFinished | CellFailed | CellPruned) -> str:
    return f"{event.dataset}, {event.label}, seed {event.seed}"
