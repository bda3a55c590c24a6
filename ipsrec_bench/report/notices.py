"""What a reader of a report must know before its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from ipsrec_bench.report.content import Report
from ipsrec_bench.report.failures import last_lines
from ipsrec_bench.report.sentences import cut_off, missing


@dataclass(frozen=True)
class Item:
    """One sentence of a notice."""

    text: str
    log: tuple[str, ...] = ()
    """The last lines of a failed cell's log."""


@dataclass(frozen=True)
class Notice:
    """Sentences of one kind."""

    title: str
    items: tuple[Item, ...]
    lines: str
    """What the sentences are about, in the plural."""

    @property
    def single(self) -> str:
        """Its only sentence, shown without a list; empty if there are several, or a log."""
        return self.items[0].text if len(self.items) == 1 and not self.items[0].log else ""


def notices_of(report: Report, without_charts: str) -> list[Notice]:
    """Return the notices above the results of a report.

    Args:
        report: the content.
        without_charts: a sentence on charts that could not be drawn; empty if all were.
    """
    return [notice for notice in _notices(report, without_charts) if notice.items]


def _notices(report: Report, without_charts: str) -> Iterator[Notice]:
    left_out = (Item(f"{', '.join(report.left_out)}."),) if report.left_out else ()
    yield Notice("Left out because raw files are missing:", left_out, "datasets")
    cells = (
        Item(f"{c.dataset}, {c.row.display}, seed {c.seed}: {missing(c)}", last_lines(c.log)) for c in report.missing
    )
    yield Notice("This run is unfinished. Missing:", tuple(cells), "cells")
    warnings = tuple(Item(warning) for warning in report.warnings)
    yield Notice("Cells of one table differ in more than they should:", warnings, "differences")
    yield Notice("Training was cut off:", tuple(map(Item, cut_off(report.cut_off))), "models")
    unread = tuple(Item(sentence) for sentence in report.unread_studies)
    yield Notice("Tuning studies that could not be read and are not shown:", unread, "studies")
    notes = [f"{note}." for note in report.notes]
    if without_charts:
        notes.append(without_charts)
    yield Notice("Note:" if len(notes) == 1 else "Notes:", tuple(map(Item, notes)), "notes")
