"""The rows of a run under each of its suite's protocols, side by side."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ipsrec_bench.report.content import ProtocolCell, ProtocolLine, ProtocolOrder, ProtocolTable, Row
from ipsrec_bench.report.provenance import of_other_users
from ipsrec_bench.report.results import Results
from ipsrec_bench.report.runs import Run
from ipsrec_bench.stats.differences import DECIMALS
from ipsrec_bench.stats.order import rank_correlation
from ipsrec_bench.suite.schema import MAIN_PROTOCOL, Protocol, Suite

_FOLD = re.compile(r"(?:^|, )fold (\d+) of (\d+)$")
"""End of the name of an earlier test period: its number from the oldest, and their number."""


def further_results(results: Results) -> tuple[dict[str, Results], tuple[str, ...]]:
    """Return the results under each further protocol, and a sentence for each cell that is left out.

    Results are by the protocol's name, and their datasets have the labels of the main protocol. A cell is left out if
    it ranks other users than the first of its dataset under the protocol.
    """
    run, found, left_out = results.run, {}, []
    for name in names_of(run):
        of_base = {
            replace(cell, dataset=cell.base): cell for cell in run.further if cell.protocol == name and not cell.control
        }
        suite = run.suite.model_copy(update={"protocol": further_protocol(results, name)})
        one = replace(results, run=replace(run, suite=suite, cells=tuple(of_base)))
        left_out += [of_other_users(of_base.pop(cell)) for cell in one.unpaired()]
        found[name] = replace(one, run=replace(one.run, cells=tuple(of_base)))
    return found, tuple(left_out)


def names_of(run: Run) -> list[str]:
    """Return the names of the further protocols of a run, each followed by its earlier test periods."""
    return list(dict.fromkeys(cell.protocol for cell in run.further if cell.protocol))


def further_protocol(results: Results, name: str) -> Protocol:
    """Return the settings of the further protocol `name`, with the metrics of the main one.

    A test period has those of its protocol.
    """
    suite = results.run.suite
    main = suite.protocol.model_dump(by_alias=True, exclude_unset=True)
    return Protocol.model_validate({**main, **_own(suite, name)})


def _own(suite: Suite, name: str) -> Mapping[str, Any]:
    """Return what the suite says of the further protocol `name`, or of the one whose test period it is."""
    of = name if name in suite.protocols else name.rpartition(", fold ")[0]
    return suite.protocols.get(of, {})


def protocol_table(results: Results) -> ProtocolTable | None:
    """Return the protocols of the run's suite side by side; None if it has only one."""
    suite = results.run.suite
    further = names_of(results.run)
    if not further:
        return None
    found, left_out = further_results(results)
    every = {MAIN_PROTOCOL: results, **found}
    lines, orders = [], []
    for dataset in results.datasets:
        means = {name: means_of(one, dataset) for name, one in every.items()}
        ranks = {name: ranks_of(of_protocol) for name, of_protocol in means.items()}
        for row in results.rows:
            scores = {name: one.score(dataset, row, results.metric) for name, one in every.items()}
            if any(scores.values()):
                cells = (ProtocolCell(score, ranks[name].get(row)) for name, score in scores.items())
                lines.append(ProtocolLine(dataset, row, tuple(cells)))
        orders += [_order(dataset, name, means) for name in further]
    differences = ("", *(_changed(suite, name) for name in further))
    other = tuple(name for name in further if _ranks_others(results, name))
    return ProtocolTable(results.metric, tuple(every), differences, other, tuple(lines), tuple(orders), left_out)


def _ranks_others(results: Results, name: str) -> bool:
    """Return whether test targets or candidates under the further protocol `name` are not those of the main one."""
    if name not in results.run.suite.protocols:  # an earlier test period
        return True
    return _basis(results.run.suite.protocol) != _basis(further_protocol(results, name))


def _basis(protocol: Protocol) -> dict[str, Any]:
    """Return the settings that determine test targets and their candidates."""
    same = {"max_length", "folds", *(("validation", "valid_share") if protocol.split == "temporal" else ())}
    return {name: value for name, value in {**protocol.training, **protocol.ranking}.items() if name not in same}


def means_of(results: Results, dataset: str) -> dict[Row, float]:
    """Return the report's metric of each row that has a complete seed on `dataset`."""
    scores = {row: results.score(dataset, row, results.metric) for row in results.rows}
    return {row: score.mean for row, score in scores.items() if score is not None}


def ranks_of(means: Mapping[Row, float]) -> dict[Row, int]:
    """Return the rank of each row, 1 for the largest mean; ties share the better rank."""
    rounded = {row: round(mean, DECIMALS) for row, mean in means.items()}
    return {row: 1 + sum(other > mean for other in rounded.values()) for row, mean in rounded.items()}


def tau_of(a: Mapping[Row, float], b: Mapping[Row, float]) -> tuple[float | None, list[Row]]:
    """Return Kendall's tau-b of the orders of the rows that both have, and these rows."""
    rows = [row for row in a if row in b]
    return rank_correlation([a[row] for row in rows], [b[row] for row in rows]), rows


def _order(dataset: str, name: str, means: Mapping[str, Mapping[Row, float]]) -> ProtocolOrder:
    here, main = means[name], means[MAIN_PROTOCOL]
    tau, rows = tau_of(main, here)
    best = max(rows, key=lambda row: here[row], default=None)
    return ProtocolOrder(dataset, name, tau, len(rows), best, max(rows, key=lambda row: main[row], default=None))


def _changed(suite: Suite, name: str) -> str:
    """Return what differs from the main protocol: settings, and of several test periods which one it is."""
    settings = {key: value for key, value in _own(suite, name).items() if key != "folds"}
    folds = _own(suite, name).get("folds", 1)
    earlier = None if name in suite.protocols else _FOLD.search(name)
    period = (earlier[1], earlier[2]) if earlier else (folds, folds)
    which = [f"test period {period[0]} of {period[1]} in order of time"] if earlier or folds > 1 else []
    return ", ".join([*_said(settings), *which])


def _said(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key} = {str(value).lower() if isinstance(value, bool) else value}"
