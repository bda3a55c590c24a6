"""The conditions of a suite: each dataset under each protocol, and with each choice of providers that is a control."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ipsrec_bench import settings
from ipsrec_bench.errors import did_you_mean, listed
from ipsrec_bench.suite.load import SuiteFile, checked
from ipsrec_bench.suite.schema import (
    AS_GIVEN,
    MAIN_PROTOCOL,
    DatasetSpec,
    Filter,
    Protocol,
    ProviderColumn,
    ProviderControl,
    SyntheticSource,
    TableSource,
    control_name,
    folds_of,
)

SOURCES: dict[str, type[TableSource] | type[SyntheticSource]] = {
    "table": TableSource,
    "synthetic": SyntheticSource,
}


@dataclass(frozen=True)
class ConditionName:
    """What a condition is made of."""

    base: str
    """Label of the dataset in the suite."""
    control: str = ""
    """The choice of providers, in words; empty for that of the dataset itself."""
    protocol: str = ""
    """Name of a further protocol of the suite; empty for the main one."""

    @property
    def label(self) -> str:
        """The name that no other condition of the suite has."""
        return ", ".join(part for part in (self.base, self.control, self.protocol) if part)


@dataclass(frozen=True)
class Condition:
    """A dataset as it is read and split; every row is trained and ranked in each."""

    name: ConditionName
    source: DatasetSpec
    protocol: Protocol
    """With the dataset's own `max_length`, `filter` and `tie_order` already applied."""
    trained_under: ConditionName | None = None
    """The condition whose trained models are ranked in this one, because training is the same in both and ranking is
    not; None if models are trained in this one."""

    @property
    def label(self) -> str:
        """The name that no other condition of the suite has."""
        return self.name.label


def conditions(file: SuiteFile, known_datasets: Mapping[str, Mapping[str, Any]]) -> list[Condition]:
    """Return the conditions of a suite: for each dataset, the main protocol, its controls, then the further protocols.

    A protocol's earlier test periods follow it, newest first, like further protocols.

    Args:
        file: the suite.
        known_datasets: settings of the datasets that a suite may name without describing them.

    Raises:
        SuiteError: a dataset is unknown, or a setting is wrong or has no effect, or two conditions have one name or
            are equal, or a control does not apply to a dataset.
    """
    further = [*_earlier("", file.suite.protocol)]
    for label, protocol in _protocols(file):
        further += [(label, protocol), *_earlier(label, protocol)]
    found = []
    for base in file.suite.datasets:
        main = _condition(file, ConditionName(base), known_datasets, file.suite.protocol)
        found.append(main)
        _check_controls(file, main)
        for providers in file.suite.controls.providers:
            name = ConditionName(base, control_name(providers))
            found.append(Condition(name, main.source.model_copy(update={"providers_as": providers}), main.protocol))
        trained, under = [main], [main]
        for label, protocol in further:
            one = _condition(file, ConditionName(base, protocol=label), known_datasets, protocol)
            _check_differs(file, one, under)
            under.append(one)
            like = next((other for other in trained if _share_training(one, other)), None)
            if like is None:
                trained.append(one)
            elif not _rank_alike(one, like):
                one = replace(one, trained_under=like.name)
            found.append(one)
    for one in found:
        _check_popularity(file, one)
    _check_names(file, found)
    _check_filters(file, found)
    return found


def _check_names(file: SuiteFile, found: Sequence[Condition]) -> None:
    """Refuse two conditions of one name; the protocol is to be renamed if there is one, else the dataset."""
    labels = [one.label for one in found]
    alike = [one for one in found if labels.count(one.label) > 1]
    if not alike:
        return
    protocol = next((one.name.protocol for one in alike if one.name.protocol in file.suite.protocols), None)
    place = ("protocols", protocol) if protocol else ("datasets", alike[0].name.base)
    raise file.error(place, f"two datasets would be called '{alike[0].label}'; rename this one")


def _check_filters(file: SuiteFile, found: Sequence[Condition]) -> None:
    """Refuse `filter_for = "training"` where nothing is filtered: it would have no effect."""
    for name in ("", *file.suite.protocols):
        written = file.suite.protocols[name].get("filter_for") if name else file.suite.protocol.filter_for
        concerned = [one for one in found if name in {"", one.name.protocol}]
        if written == "training" and not any(one.protocol.filters_training for one in concerned):
            raise file.error(
                (*(("protocols", name) if name else ("protocol",)), "filter_for"),
                "found 'training', but no dataset has a filter, so this changes nothing; set filter, or remove the key",
            )


def _check_differs(file: SuiteFile, one: Condition, others: Iterable[Condition]) -> None:
    """Refuse a further protocol under which a dataset is read, split and ranked as under one of the `others`."""
    like = next((other for other in others if _share_training(one, other) and _rank_alike(one, other)), None)
    if like is None:
        return
    base, name = one.name.base, one.name.protocol
    same = f"[protocols.{like.name.protocol}]" if like.name.protocol else "[protocol]"
    if "folds" in file.suite.protocols[name]:
        raise file.error(
            ("protocols", name, "folds"),
            f"found {file.suite.protocols[name]['folds']}, but the newest test period is that of {same}; set folds"
            " there",
        )
    own = [key for key in file.suite.protocols[name] if key in file.suite.datasets[base]]
    if own:
        raise file.error(
            ("protocols", name, own[0]),
            f"datasets.{base} has a {own[0]} of its own, which counts there, so this protocol is the same as {same};"
            " remove one of the two",
        )
    raise file.error(
        ("protocols", name), f"on '{base}', this protocol is the same as {same}; change a setting, or remove it"
    )


def _rank_alike(one: Condition, other: Condition) -> bool:
    """Return whether the targets of trained models are ranked in the same way."""
    return one.protocol.ranking == other.protocol.ranking


def _share_training(one: Condition, other: Condition) -> bool:
    """Return whether nothing that training or the choice of its best epoch reads differs, except for the ranking."""
    return one.source == other.source and one.protocol.training == other.protocol.training


def _check_controls(file: SuiteFile, main: Condition) -> None:
    """Refuse controls that do not apply to a dataset of the suite."""
    wanted, base = file.suite.controls.providers, main.name.base
    if wanted and main.source.providers_as != AS_GIVEN:
        raise file.error(
            ("datasets", base, "providers_as"),
            f"found {settings.shown(_written(main.source.providers_as))}, and [controls] would replace it; remove one"
            " of the two, or name the column of the providers with `provider`",
        )
    for one in wanted:
        if isinstance(one, ProviderColumn) and isinstance(main.source, SyntheticSource):
            raise file.error(
                ("controls", "providers"),
                f"found {settings.shown(_written(one))}, and '{base}' is from the embedded generator, which has no"
                " columns; remove one of the two",
            )


def _check_popularity(file: SuiteFile, one: Condition) -> None:
    """Refuse classes of popularity where interactions are counted that the split holds out."""
    if one.source.providers_as == "popularity" and one.protocol.split != "leave-one-out":
        place = ("controls", "providers") if one.name.control else ("datasets", one.name.base, "providers_as")
        what = "control" if one.name.control else "choice of providers"
        raise file.error(
            place,
            f"'popularity' counts interactions that split = '{one.protocol.split}' holds out ('{one.label}'); take"
            f" another {what}, or split = 'leave-one-out'",
        )


def _written(providers: ProviderControl) -> object:
    """Return a choice of providers as a suite writes it."""
    return providers.model_dump() if isinstance(providers, ProviderColumn) else providers


def _condition(
    file: SuiteFile, name: ConditionName, known_datasets: Mapping[str, Mapping[str, Any]], protocol: Protocol
) -> Condition:
    source = _completed(file, name.base, known_datasets, protocol)
    own = {
        "max_length": source.max_length or protocol.max_length,
        "filter": source.filter,
        "tie_order": source.tie_order,
        "folds": 1,
    }
    return Condition(name, _as_read(source, protocol), protocol.model_copy(update=own))


def resolve_protocol(file: SuiteFile, name: str, known_datasets: Mapping[str, Mapping[str, Any]]) -> Protocol:
    """Return the suite's main protocol with the maximum length and the filter of the dataset `name`.

    Raises:
        SuiteError: as `resolve_source`.
    """
    return _condition(file, ConditionName(name), known_datasets, file.suite.protocol).protocol


def _earlier(name: str, protocol: Protocol) -> Iterator[tuple[str, Protocol]]:
    """Yield name and settings of a protocol's test periods before the newest."""
    _, *earlier = folds_of(protocol)
    for fold, of_fold in earlier:
        yield ", ".join(part for part in (name, fold) if part), of_fold


def _protocols(file: SuiteFile) -> Iterator[tuple[str, Protocol]]:
    """Yield name and settings of the suite's further protocols.

    Raises:
        SuiteError: a setting is wrong, or a name is taken.
    """
    suite = file.suite
    controls = [control_name(providers) for providers in suite.controls.providers]
    for name, changed in suite.protocols.items():
        where: settings.Path = ("protocols", name)
        if name in {MAIN_PROTOCOL, *suite.datasets, *controls}:
            what = "the suite's main protocol" if name == MAIN_PROTOCOL else "a dataset or a control of this suite"
            raise file.error(where, f"the name '{name}' is that of {what}; choose another one")
        for key in ("metrics", "cutoffs", "ties"):
            if key in changed:
                what = "count ties alike" if key == "ties" else "show the same metrics"
                raise file.error((*where, key), f"all protocols of a suite {what}; set protocol.{key} instead")
        yield name, further_protocol(file, name)


def further_protocol(file: SuiteFile, name: str) -> Protocol:
    """Return the settings of the suite's further protocol `name`, completed from the main one.

    Raises:
        SuiteError: a setting is wrong.
    """
    main = file.suite.protocol.model_dump(by_alias=True, exclude_unset=True)
    return checked(file, Protocol, {**main, **file.suite.protocols[name]}, ("protocols", name))


def resolve_source(
    file: SuiteFile, name: str, known_datasets: Mapping[str, Mapping[str, Any]], protocol: Protocol | None = None
) -> DatasetSpec:
    """Return the settings of the suite's dataset `name`, completed from the known datasets, the protocol and the suite.

    Args:
        file: the suite.
        name: label of the dataset.
        known_datasets: settings of the datasets that a suite may name without describing them.
        protocol: the protocol that completes them; by default the suite's main one.

    Raises:
        SuiteError: no known dataset has the name and the suite does not describe it, or a setting is wrong.
    """
    protocol = protocol or file.suite.protocol
    return _as_read(_completed(file, name, known_datasets, protocol), protocol)


def _as_read(source: DatasetSpec, protocol: Protocol) -> DatasetSpec:
    """Return `source` without its filter if that is for training alone: the data are read whole."""
    return source.model_copy(update={"filter": Filter()}) if protocol.filter_for == "training" else source


def _completed(
    file: SuiteFile, name: str, known_datasets: Mapping[str, Mapping[str, Any]], protocol: Protocol
) -> DatasetSpec:
    """Return what `resolve_source` does, with the filter, whatever it is for."""
    where: settings.Path = ("datasets", name)
    if name not in file.suite.datasets:
        raise file.error(
            ("datasets",),
            f"there is no dataset '{name}'{did_you_mean(name, file.suite.datasets)}; known:"
            f" {listed(file.suite.datasets)}",
        )
    # The suite's own settings override those of the known dataset, and these override the protocol's defaults.
    said = protocol.model_fields_set
    known = {key: value for key, value in known_datasets.get(name, {}).items() if key not in said}
    raw = {**known, **file.suite.datasets[name]}
    if not raw:
        raise file.error(
            where,
            f"'{name}' is not a known dataset and has no settings of its own"
            f"{did_you_mean(name, known_datasets) or f'; known: {listed(known_datasets)}'}",
        )
    kind = raw.get("source", "table")
    if not isinstance(kind, str) or kind not in SOURCES:
        raise file.error(
            (*where, "source"),
            f"found {settings.shown(kind)}; allowed: {listed(SOURCES)}{did_you_mean(str(kind), SOURCES)}",
        )
    source = checked(file, SOURCES[kind], raw, where)
    return source.model_copy(
        update={
            "filter": source.filter or protocol.filter,
            "tie_order": protocol.tie_order if source.tie_order is None else source.tie_order,
            "scale": source.scale or file.suite.scale,
        }
    )
