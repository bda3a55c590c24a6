"""Sources of a dataset, in words."""

from collections.abc import Mapping

from ipsrec_bench.store.records import RunDataset
from ipsrec_bench.suite.schema import control_of

ROLES = ("user", "item", "provider", "time")
ELSEWHERE = {"source", "path", "filter", "scale", "max_length", "origin", "providers_as", "tie_order", *ROLES}
"""Settings that another line or the rest of the protocol shows."""
IDLE = [("lines", "json"), ("quoting", "auto")]
"""Usual values of settings, which are not shown."""
NAMES = {
    "columns": "names of the columns",
    "unknown": "placeholders for an unknown provider",
    "where": "rows where",
    "lines": "format of the lines",
}


def source_facts(dataset: RunDataset, providers: int) -> tuple[tuple[str, str], ...]:
    """Return what `dataset` was read from and how, as pairs of name and value; settings left empty are left out.

    Args:
        dataset: as the run was started on it.
        providers: number of its known providers. Without any, its column of providers need not exist.
    """
    source, sha256 = dataset.source, list(dataset.files.values())
    if "path" in source:
        columns = {role: source.get(role) for role in ROLES if providers or role != "provider"}
        facts = [("file", f"{source['path']}, sha256 {sha256[0]}"), ("columns", _words(columns))]
    else:
        facts = [("file", f"none: {source['source']} data")]
    for name, value in source.items():
        if isinstance(value, Mapping) and "path" in value:
            rest = {key: part for key, part in value.items() if (key, part) not in IDLE and key not in ELSEWHERE}
            columns = {role: value.get(role) for role in ("item", "provider")}
            facts.append(("item table", f"{value['path']}, sha256 {sha256[-1]}; {_words({**columns, **rest})}"))
        elif name not in ELSEWHERE and _is_said(value) and (name, value) not in IDLE:
            facts.append((NAMES.get(name, name.replace("_", " ")), _words(value)))
    if not providers:
        facts.append(("providers", "none is known"))
    if control := control_of(source):
        facts.append(("providers", f"not the data's own: {control}"))
    if "tie_order" in source:
        facts.append(("order of equal times", f"random, seed {source['tie_order']}"))
    facts.append(("filter", dataset.filter))
    if dataset.scale < 1:
        facts.append(("share of the users", f"{100 * dataset.scale:g}%"))
    return tuple(facts)


def _is_said(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {_words(part)}" for name, part in value.items() if _is_said(part))
    if isinstance(value, list):
        return ", ".join(_words(part) if part else "nothing" for part in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
