"""The schema of a suite: every setting that can change a result or a table, with its one default."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from ipsrec_bench.settings import Settings

Metric = Literal["hr", "mrr", "ndcg"]
T = TypeVar("T")
MOST_ITEMS = 2**31 - 1
"""Maximum number of items, because items are numbered in 32 bits."""
LONGEST_HISTORY = 100_000
LONGEST_NAME, LONGEST_STEM = 100, 200
Cutoff = Annotated[int, Field(ge=1, le=MOST_ITEMS)]
MOST_SEEDS = 2**31
Seed = Annotated[int, Field(ge=0, lt=MOST_SEEDS)]
MIN_WILCOXON = 3
MOST_OFFERS = 100_000_000
"""Limit of a synthetic world: the generator draws a number for every pair of item and provider."""
MOST_STEPS = 50_000_000
"""Limit of a synthetic world: the generator holds about twice as many steps as the users take on average."""
PROVIDER_STRENGTHS = {"none": 0.0, "low": 0.3, "high": 0.8}


def check_metric(name: str) -> str:
    """Return `name` if it is a metric with a cutoff, like `ndcg@10`.

    Raises:
        ValueError: it is not, or its cutoff is larger than any catalogue.
    """
    match = re.fullmatch(r"(?:hr|mrr|ndcg)@([1-9][0-9]*)", name)
    if not match:
        raise ValueError("expected 'hr', 'mrr' or 'ndcg' and a cutoff, like 'ndcg@10'")
    if len(match[1]) > len(str(MOST_ITEMS)) or int(match[1]) > MOST_ITEMS:
        raise ValueError(f"a cutoff is at most {MOST_ITEMS:,}, because no catalogue is larger")
    return name


def check_name(name: str, *, longest: int = LONGEST_NAME) -> str:
    """Return `name` if it is valid in tables and as a file's name.

    Raises:
        ValueError: it is not.
    """
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > longest:
        raise ValueError(
            f"a name has 1 to {longest} characters, no blanks at its ends, and no line breaks or other invisible"
            " characters"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
MetricName = Annotated[str, AfterValidator(check_metric)]


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("each value may occur only once")
    return values


def check_suite_name(name: str) -> str:
    """Return `name` if it is valid as the name of a suite.

    Raises:
        ValueError: it is not valid in tables, or commands would mistake it for a file or a run.
    """
    if name.lower().endswith(".toml") or re.search(r"@\d+$", name):
        raise ValueError("a suite's name may not end like a file's (.toml) or a run's (@ and a number)")
    return check_name(name, longest=LONGEST_STEM)


class Bounds(Settings):
    """How many interactions a user, or an item, must have."""

    min: int = Field(1, ge=1, le=2**31 - 1)
    """Smallest number of interactions."""
    max: int | None = Field(None, ge=1, le=2**31 - 1)
    """Largest number of interactions; unlimited if not set."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min = {self.min} may not exceed max = {self.max}")
        return self


FILTER_FORMS = 'expected "none", "5-core", "5-100", or a table with users, items and passes'


class Filter(Settings):
    """Which users and items stay in a dataset, by how many interactions they have.

    A filter is a table, or one of the texts "none", "5-core" (at least 5 interactions) and "5-100" (5 to 100), with any
    numbers. One pass counts the interactions of users and items and drops those of every user and item out of bounds.
    """

    users: Bounds = Bounds()
    """Interactions that a user must have."""
    items: Bounds = Bounds()
    """Interactions that an item must have."""
    passes: Literal["all", "one"] = "all"
    """`all` repeats the pass until nothing is out of bounds (a k-core, as in RecBole); `one` makes a single pass."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """Expand "none", "5-core" and "5-100" into tables."""
        if isinstance(value, Mapping | Filter):
            return value
        if not isinstance(value, str):
            raise ValueError(FILTER_FORMS)  # noqa: TRY004 (pydantic takes no TypeError)
        match = re.fullmatch(r"([0-9]{1,20})-(core|[0-9]{1,20})", value)
        if value != "none" and not match:
            raise ValueError(FILTER_FORMS)
        if not match:
            return {}
        bounds = {"min": int(match[1]), "max": None if match[2] == "core" else int(match[2])}
        return {"users": bounds, "items": bounds}

    @property
    def active(self) -> bool:
        """Whether anything can be out of bounds."""
        return self.users != Bounds() or self.items != Bounds()

    def __str__(self) -> str:
        """Describe what stays, for tables."""
        if not self.active:
            return "none"
        parts = (
            f"{name} with {bounds.min}{f' to {bounds.max}' if bounds.max else ' or more'} interactions"
            for name, bounds in (("users", self.users), ("items", self.items))
            if bounds != Bounds()
        )
        return " and ".join(parts) + (", in one pass" if self.passes == "one" else "")


class Duplicates(Settings):
    """Rows that repeat the same interaction, of which one is kept."""

    columns: tuple[str, ...] = Field(min_length=1)
    """Columns of the file; rows that agree in all of them are duplicates."""
    keep: Literal["newest", "oldest"] = "newest"
    """Which row of each group of duplicates is kept, by time, then by row of the file."""


IN_FILE_ORDER: Literal["file"] = "file"


def _check_tie_order(value: object) -> object:
    """Return `value` if it is "file" or a seed; of a union, pydantic would name only one of the two."""
    if value == IN_FILE_ORDER or (isinstance(value, int) and 0 <= value < MOST_SEEDS):
        return value
    raise ValueError(f"expected 'file', or a seed: a whole number from 0 to {MOST_SEEDS - 1:,}")


TieOrder = Annotated[Literal["file"] | Seed, BeforeValidator(_check_tie_order)]
"""Order of a user's interactions with equal times: that of the file, or a random one drawn with this seed."""


class ProviderColumn(Settings):
    """Another column of the data whose values take the place of the providers."""

    column: str = Field(min_length=1)
    """Name of the column, in the file that has the providers."""


ChangedProviders = Literal["shuffled", "one", "popularity"] | ProviderColumn
ProviderControl = Literal["as given", "shuffled", "one", "popularity"] | ProviderColumn
AS_GIVEN: Literal["as given"] = "as given"


def control_name(providers: ProviderControl) -> str:
    """Return a choice of providers in words, for titles; empty for the data's own."""
    if isinstance(providers, ProviderColumn):
        return f"{providers.column} as provider"
    return {
        "as given": "",
        "shuffled": "shuffled providers",
        "one": "one provider",
        "popularity": "popularity as provider",
    }[providers]


def control_of(source: Mapping[str, Any]) -> str:
    """Return the choice of providers of a source's settings, as plain JSON values, in words; empty for its own."""
    wanted = source.get("providers_as", AS_GIVEN)
    return control_name(ProviderColumn(**wanted) if isinstance(wanted, Mapping) else wanted)


class Source(Settings):
    """Settings common to all sources."""

    filter: Filter | None = None
    """Overrides `protocol.filter` for this dataset. That of a known dataset applies only if the suite has none."""
    max_length: int | None = Field(None, ge=1, le=LONGEST_HISTORY)
    """Overrides `protocol.max_length` for this dataset. That of a known dataset applies only if the suite has none."""
    scale: float | None = Field(None, gt=0, le=1)
    """Overrides the suite's `scale` for this dataset."""
    providers_as: ProviderControl = Field(AS_GIVEN, exclude_if=lambda value: value == AS_GIVEN)
    """Who counts as the provider of an item. `as given`: the data's own. `shuffled`: the data's own, permuted over
    items, so that each provider keeps its number of items and the information is gone. `one`: a single provider.
    `popularity`: classes of equally popular items, each of which covers a factor of two; the last two interactions of
    each user are not counted. `{ column = "brand" }`: the values of another column."""
    tie_order: TieOrder | None = Field(None, exclude_if=lambda value: value in (None, IN_FILE_ORDER))
    """Overrides `protocol.tie_order` for this dataset."""


Column = str | tuple[str, ...]
"""Name of a column, or names of which the first one in the file is used."""
MAX_DELIMITER = 4
"""Maximum bytes; DuckDB allows no more."""
PLACEHOLDERS = (
    *("NA", "N/A", "#N/A", "<NA>", "NaN", "NaT", "NULL", "(null)", "None", "nil", "\\N", "?", "-"),
    *("unknown", "undefined"),
)
"""Texts that programs write for an unknown value."""


def _delimiter(value: str) -> str:
    value = value.replace("\\t", "\t")  # as TOML's single quotes leave it
    if not 1 <= len(value.encode()) <= MAX_DELIMITER or any(character in '\n\r"\0' for character in value):
        raise ValueError(f"expected 1 to {MAX_DELIMITER} characters, none of them a quote or a line break")
    return value


class TableFile(Settings):
    """A file of rows, and how it is written."""

    path: str
    """The file. A relative path starts at `raw/` in the data directory; `${NAME}` is replaced by the environment
    variable of that name. A file compressed with gzip may end in `.gz`."""
    columns: tuple[str, ...] = ()
    """Names of the columns, in order, of a delimited file without a header."""
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = None
    """What separates columns: one to four characters. Found from the file if not set."""
    quoting: Literal["auto", "double", "none"] = "auto"
    """How quotes in delimited text are read. `double`: a value in double quotes may hold delimiters and line breaks.
    `none`: quotes are ordinary characters. `auto` is `none` if tabs delimit, else `double`."""
    lines: Literal["json", "python"] = "json"
    """How each line of a `.json` file is written: as a JSON object, or as Python writes a dictionary."""
    where: str = ""
    """Condition in DuckDB's SQL on the file's columns, which are text; other rows are not read. It cannot read other
    files."""

    @field_validator("columns")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [name.lower() for name in value]  # SQL ignores case
        if "" in names or len(set(names)) < len(names):
            raise ValueError("each column needs a different name")
        return value


class ItemTable(TableFile):
    """A second file that says which provider made each item, joined on the item's id."""

    item: Column
    """Column of the item's id, matched against the interactions' item column."""
    provider: Column
    """Column of the provider's id; empty means unknown."""


class TableSource(Source, TableFile):
    """Interactions in delimited text, JSON lines, a JSON array, a Parquet file or a RecBole atomic file (`.inter`).

    A relative `path` is looked up below `raw/` in the data directory; `${NAME}` is replaced by the
    environment variable of that name.
    """

    source: Literal["table"] = "table"
    """Kind of source: a file."""
    user: Column = "user"
    """Column of the user's id. Of a list of names, the first that the file has is read."""
    item: Column = "item"
    """Column of the item's id, or a list of names."""
    provider: Column = "provider"
    """Column of the provider's id, or a list of names. Empty if the data have no providers; not read if `items` is
    given. If it is not set and the file has no such column, all providers are unknown, and a note says so."""
    time: Column = "time"
    """Column of the time, or a list of names: numbers or timestamps. Equal times keep the order of the file.
    `"month + day"` joins the texts of two columns."""
    time_format: str = ""
    """How times are written, in the notation of strptime, such as `%d.%m.%Y`. Empty for numbers and for dates that
    begin with the year; see `ipsrec_bench.data.times`."""
    available_from: Column = Field((), exclude_if=lambda value: not value)
    """Column of the time from which on an item can be recommended, or a list of names; in the file or in `items`, and
    written like `time`. Of several rows of an item, the earliest counts. It is the time of the item's first interaction
    if not set, or if no row has a value. Only `protocol.candidates = "available"` uses it."""
    available_until: Column = Field((), exclude_if=lambda value: not value)
    """Column of the time from which on an item cannot be recommended any more, likewise; of several rows the latest
    counts. If not set, an item can be recommended up to its last interaction, included."""
    unknown: tuple[str, ...] = PLACEHOLDERS
    """Texts that mean an unknown provider, whatever their case and surrounding blanks; an empty text always does. A
    user or item with such an id is an error."""
    items: ItemTable | None = None
    """A second file with the provider of each item."""
    duplicates: Duplicates | None = None
    """Which rows are duplicates, of which one is kept; all rows are kept if not set."""
    origin: str = ""
    """Where to get the file; the error about a missing file repeats it."""


class SyntheticSource(Source):
    """The embedded generator; `ipsrec_bench.data.synthetic` documents the world it draws from."""

    source: Literal["synthetic"] = "synthetic"
    """Kind of source: the embedded generator."""
    users: int = Field(1500, ge=1, le=10_000_000)
    """Number of users."""
    items: int = Field(800, ge=2, le=10_000_000)
    """Number of items."""
    providers: int = Field(50, ge=1, le=10_000_000)
    """Number of providers."""
    providers_per_item: int = Field(3, ge=1, le=10_000_000)
    """Number of providers that offer the same item; with 1 the item determines its provider."""
    mean_length: float = Field(12.0, ge=1, le=LONGEST_HISTORY)
    """Mean number of interactions per user."""
    provider_strength: Literal["none", "low", "high"] = "high"
    """How often the provider, not the item's topic, decides the next step: `none` is 0%, `low` 30%, `high` 80%."""
    loyalty: float = Field(0.5, ge=0, le=1)
    """Probability that a step decided by the provider stays with the provider."""
    drift: float = Field(0.5, ge=0, le=1)
    """Probability that a step decided by the provider moves to the provider's fixed successor. The rest, beside
    `loyalty` and `drift`, moves to a random provider."""
    popularity_exponent: float = Field(0.8, ge=0, le=10)
    """Exponent of the power law of item popularity; 0 makes all items equally popular."""
    seed: Seed = 7
    """Seed of the generator."""

    @field_validator("providers_as")
    @classmethod
    def _without_columns(cls, value: ProviderControl) -> ProviderControl:
        if isinstance(value, ProviderColumn):
            raise ValueError(  # noqa: TRY004 (pydantic takes no TypeError)
                "the embedded generator has no columns; allowed: 'as given', 'shuffled', 'one', 'popularity'"
            )
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for what, count, most in (
            ("items x providers", self.items * self.providers, MOST_OFFERS),
            ("users x mean_length", self.users * self.mean_length, MOST_STEPS),
        ):
            if count > most:
                raise ValueError(f"{what} is {count:,.0f}, more than the generator can hold; allowed: up to {most:,}")
        if self.loyalty + self.drift > 1:
            raise ValueError(f"loyalty = {self.loyalty} and drift = {self.drift} may not add up to more than 1")
        if self.providers_per_item > self.providers:
            raise ValueError(
                f"providers_per_item = {self.providers_per_item} may not exceed providers = {self.providers}"
            )
        return self


DatasetSpec = TableSource | SyntheticSource


MaskHistory = Literal[False, True, "miss"]
"""Values of `protocol.mask_history`."""


MAIN_PROTOCOL = "main"
"""Name of the protocol `[protocol]` beside those of `[protocols]`."""
TargetRule = Literal["first", "last", "random", "all"]
"""Values of `protocol.target`."""
ValidationRule = Literal["time", "last-train", "users"]
"""Values of `protocol.validation`."""
Ties = Literal["realistic", "expected"]
"""Values of `protocol.ties`."""

OF_RANKING = ("mask_history", "candidates")
"""Settings of a protocol that only determine how a trained model's targets are ranked."""


class Protocol(Settings):
    """What is held out, how much of a history a model sees, and which metrics are shown."""

    split: Literal["leave-one-out", "temporal", "user-holdout"] = "leave-one-out"
    """What is held out. `leave-one-out`: each user's last interaction for the test and the one before for validation.
    `temporal`: the interactions after two cuts in time, which are the same for all users. `user-holdout`: the last
    interaction of users that training does not see at all."""
    valid_share: float = Field(0.1, gt=0, lt=1)
    """Share held out for validation: of interactions (`temporal`) or of users (`user-holdout`)."""
    test_share: float = Field(0.1, gt=0, lt=1)
    """Share held out for the test: of interactions (`temporal`) or of users (`user-holdout`)."""
    filter: Filter = Filter()
    """Users and items that stay: "none", "5-core" (at least 5 interactions), "5-100" (5 to 100), or a table."""
    max_length: int = Field(50, ge=1, le=LONGEST_HISTORY)
    """A model sees the newest `max_length` interactions of a history."""
    mask_history: MaskHistory = False
    """Whether the items of the user's whole history are excluded from the candidates. A target among them cannot be
    found then: `true` leaves its user out, `"miss"` counts it as a miss, as in RecBole."""
    target: TargetRule = Field("first", exclude_if=lambda value: value == "first")
    """`temporal`: which of a user's interactions after a cut are targets. `first`, `last` and `random` take one of
    them, `all` takes each (successive evaluation); a user's metric is the mean over the user's targets then. The
    history of a target is everything of the user before it, also after the cut. Validation targets follow this rule,
    too."""
    validation: ValidationRule = Field("time", exclude_if=lambda value: value == "time")
    """`temporal`: what is held out for validation. `time`: interactions between two cuts. `last-train`: each user's
    last interaction before the test's cut. `users`: those of a share `valid_share` of the users before the test's cut;
    training sees nothing of these users, and `first` means their last interaction."""
    folds: int = Field(1, ge=1, le=100, exclude_if=lambda value: value == 1)
    """`temporal`: number of successive test periods, each of a share `test_share`, the last of which ends with the
    data. Each is a repetition of the suite, in which later interactions do not exist. The main tables are of the newest
    one."""
    filter_for: Literal["all", "training"] = Field("all", exclude_if=lambda value: value == "all")
    """What `filter` applies to. `all`: the dataset. `training`: the interactions that models are trained on, which are
    counted alone; all users are tested, after their whole histories, and all items stay candidates."""
    tie_order: TieOrder = Field(IN_FILE_ORDER, exclude_if=lambda value: value == IN_FILE_ORDER)
    """Order of a user's interactions with equal times: that of the `file`, or a random one that is drawn with this
    seed. It is a setting of the preparation: an order that says nothing is a repetition like a seed of training."""
    candidates: Literal["all", "available"] = Field("all", exclude_if=lambda value: value == "all")
    """Among which items a target is ranked. `all`: the whole catalogue. `available`: the items that exist at the time
    of the target; see the keys `available_from` and `available_until` of a dataset."""
    ties: Ties = "realistic"
    """How a target counts in tables if it ties with other items. `realistic`: it has the middle rank of its ties.
    `expected`: the mean of the metric over all orders of its ties (McSherry and Najork, 2008). The metric that stops
    training is always realistic."""
    metrics: tuple[Metric, ...] = Field(("hr", "mrr", "ndcg"), min_length=1)
    """Metrics of the tables."""
    cutoffs: tuple[Cutoff, ...] = Field((5, 10), min_length=1, max_length=100)
    """Cutoffs of the metrics: 10 makes `ndcg@10` and so on."""

    _distinct = field_validator("metrics", "cutoffs")(_distinct)

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of the tables, like `ndcg@10`."""
        return tuple(f"{name}@{cutoff}" for name in self.metrics for cutoff in self.cutoffs)

    @property
    def training(self) -> dict[str, Any]:
        """The settings that training and the choice of targets depend on, as plain JSON values."""
        without = {"metrics", "cutoffs", "ties", *OF_RANKING}
        return self.model_dump(mode="json", exclude=without | self.idle)

    @property
    def idle(self) -> set[str]:
        """The keys that have no effect because of what other keys are set to."""
        found = set() if self.filter.active else {"filter_for"}
        if not self.takes_shares:
            return found | {"valid_share", "test_share"}
        return found | ({"valid_share"} if self.validation == "last-train" else set())

    @property
    def ranking(self) -> dict[str, Any]:
        """The settings that only determine how a trained model's targets are ranked, as plain JSON values.

        Whether a target is a candidate depends on `mask_history`, too: it may leave users out.
        """
        return self.model_dump(mode="json", include={*OF_RANKING})

    @property
    def later_folds(self) -> int:
        """Number of test periods after this one, whose interactions do not exist; see `folds`."""
        return 0

    @property
    def split_name(self) -> str:
        """The split with what it is set to: equal data with equal names have equal targets."""
        further = (
            f"target {self.target}" if self.target != "first" else "",
            f"validation {self.validation}" if self.validation != "time" else "",
            f"without {self.later_folds} later" if self.later_folds else "",
            f"trained on {self.filter}" if self.filters_training else "",
        )
        shares = f"{self.split} {self.valid_share} {self.test_share}" if self.takes_shares else self.split
        return ", ".join([shares, *(part for part in further if part)])

    @property
    def takes_shares(self) -> bool:
        """Whether `valid_share` and `test_share` change what is held out."""
        return self.split != "leave-one-out"

    @property
    def filters_training(self) -> bool:
        """Whether models are trained on a part of the training interactions."""
        return self.filter_for == "training" and self.filter.active

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        own_share = self.validation != "time"  # of other things than `test_share`, or none
        if (0 if own_share else self.valid_share) + self.folds * self.test_share >= 1:
            of_folds = f", {self.folds} times," if self.folds > 1 else ""
            shares = "" if own_share else f"valid_share = {self.valid_share:g} and "
            leave = "leaves" if own_share else "leave"
            raise ValueError(f"{shares}test_share = {self.test_share:g}{of_folds} {leave} nothing to train on")
        return self

    @model_validator(mode="after")
    def _cuts_in_time(self) -> Self:
        for name, default in (("target", "first"), ("validation", "time"), ("folds", 1)):
            value = getattr(self, name)
            if self.split != "temporal" and value != default:
                shown, usual = (f"'{one}'" if isinstance(one, str) else one for one in (value, default))
                raise ValueError(
                    f"{name} = {shown} needs split = 'temporal', and split is '{self.split}'; change the split, or set"
                    f" {name} = {usual}"
                )
        return self


class EarlierFold(Protocol):
    """The protocol of an earlier test period of `folds`; no suite can set it."""

    later: int = Field(ge=1, le=100)
    """Number of later test periods, whose interactions do not exist."""

    @property
    def later_folds(self) -> int:
        """Number of test periods after this one, whose interactions do not exist."""
        return self.later


def folds_of(protocol: Protocol) -> tuple[tuple[str, Protocol], ...]:
    """Return the protocols of the test periods that `folds` asks for, newest first, with their names.

    The newest is the protocol with a single test period, and has no name.
    """
    folds = protocol.folds
    newest = protocol.model_copy(update={"folds": 1})
    plain = {name: getattr(newest, name) for name in type(newest).model_fields}
    said = protocol.model_fields_set  # a known dataset has its say on the others
    earlier = (
        (f"fold {folds - n} of {folds}", EarlierFold.model_construct(said, **plain, later=n)) for n in range(1, folds)
    )
    return ("", newest), *earlier


class Training(Settings):
    """How a model is fitted."""

    samples: Literal["auto", "packed", "prefix"] = "auto"
    """How training samples are made. `packed` predicts every position of a window in one pass (causal models only).
    `prefix` predicts one position per sample. `auto` is `packed` if the model allows it, else `prefix`."""
    min_context: int = Field(0, ge=0, le=LONGEST_HISTORY)
    """Packed samples: a history longer than the maximum length is cut into windows at places drawn anew each epoch, and
    every target is predicted from more than this many inputs. More context costs more windows."""
    objective: Literal["softmax", "sampled-softmax", "bce", "gbce"] = "softmax"
    """Loss of the next item. `softmax` is the exact cross-entropy over all items. `sampled-softmax` and `gbce`
    approximate it with `negatives` sampled items, for catalogues whose exact loss costs too much. `bce` is the binary
    cross-entropy of the original SASRec. Every table names an objective that is not `softmax`."""
    negatives: int = Field(256, ge=1, le=1_000_000)
    """Items drawn by an objective that samples."""
    negatives_per: Literal["batch", "target"] = "batch"
    """What an objective that samples draws its `negatives` for: once for each batch, whose targets share them, or for
    each target. For a target, they cost memory for `negatives` vectors; the original SASRec draws one."""
    calibration: float = Field(0.75, ge=0, le=1)
    """The calibration t of gBCE."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the factors of matrix products in training; sums, weights and ranks are always float32. `auto`
    is bfloat16 if the processor multiplies it faster."""
    optimiser: Literal["adam", "lazy-adam"] = "adam"
    """`lazy-adam` updates only the embedding rows that a batch used. It is another optimiser, for very large tables."""
    epochs: int = Field(50, ge=1, le=1_000_000)
    """Largest number of epochs."""
    batch_size: int = Field(256, ge=1, le=10_000_000)
    """Targets per optimiser step, for packed and prefix samples alike."""
    learning_rate: float = Field(1e-3, gt=0, le=1e30)
    """Learning rate of the optimiser."""
    weight_decay: float = Field(0.0, ge=0, le=100, exclude_if=lambda value: not value)
    """Decoupled weight decay, as in AdamW: every step shrinks all weights by `learning_rate` times this share.
    `lazy-adam` has none."""
    stop_metric: MetricName = "mrr@10"
    """Validation metric that chooses the best epoch: `hr`, `mrr` or `ndcg` with a cutoff."""
    patience: int = Field(10, ge=1, le=1_000_000)
    """Epochs without a better `stop_metric` after which training stops."""
    refit: bool = Field(False, exclude_if=lambda value: not value)
    """Whether a model is trained again, on training and validation interactions together, for the number of epochs that
    was best on the validation targets. The test targets are ranked by the second model."""

    @property
    def approximation(self) -> str:
        """The note in every table beside a model that was not trained on the exact softmax; empty for the exact one."""
        if self.objective == "softmax":
            return ""
        calibration = f", t = {self.calibration:g}" if self.objective == "gbce" else ""
        drawn = "1 negative" if self.negatives == 1 else f"{self.negatives} negatives"
        per_target = " per target" if self.negatives_per == "target" else ""
        return f"{self.objective}, {drawn}{per_target}{calibration}"


def _not_renamed(test: object) -> object:
    if test == "crossed":
        raise ValueError("'crossed' is now 'method', which needs no equal numbers of seeds; write test = 'method'")
    return test


class Statistics(Settings):
    """Which comparisons are made and how their p-values are corrected."""

    baseline: str = "best"
    """Row that the proposed models are compared with, by its label. `best` is the baseline with the best validation
    ranks on each dataset and metric, variants excluded. Where a baseline lacks validation ranks, as imports do, the
    best is chosen on the test data, and the report says so."""
    proposed: tuple[str, ...] = ()
    """Models whose improvement over the baseline the result table shows; all others are baselines. Empty means every
    model whose type begins with `ipsrec`."""
    metric: Annotated[str, AfterValidator(lambda name: name and check_metric(name))] = ""
    """Metric of the summary, charts and slices, like `ndcg@10`; empty means the last metric of the tables."""
    test: Annotated[
        Literal["auto", "method", "paired-t", "randomisation", "wilcoxon"], BeforeValidator(_not_renamed)
    ] = "auto"
    """Test whose p-values mark the tables. `method`: over users and the seeds of both rows (is this method better?); it
    needs three seeds of every row that is not deterministic. `paired-t`: over users, of the mean over seeds (is this
    trained model better?). `auto`: `method` where both rows have the seeds for it, else `paired-t`. `randomisation`:
    random sign flips over users. `wilcoxon`: signed ranks over users, which has too many false alarms at these numbers
    of users."""
    interval: Literal["test", "bootstrap"] = "test"
    """Interval of a difference. `test`: that of the test, or of the paired t-test if the test has none. `bootstrap`:
    bias-corrected and accelerated bootstrap over users, for tests over users only."""
    resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Sign flips of the randomisation test, and samples of the bootstrap."""
    correction: Literal["holm", "benjamini-hochberg", "bonferroni", "none"] = "holm"
    """How p-values are corrected for the number of comparisons in a family."""
    margin: float | None = Field(None, gt=0, lt=1)
    """Equivalence margin, as a share of the reference's mean. If set, every comparison is also tested for equivalence
    within it, a significant difference within it gets no mark, and the report shows how probable it is that the
    difference is below, within and above the margin."""
    family: Literal["metric", "dataset", "suite", "all-pairs"] = "metric"
    """Comparisons that are corrected together: those of one metric on one dataset, of all metrics on one dataset, or
    all of the suite. Proposed rows, other rows and the ablation are separate families. `all-pairs`: all pairs of whole
    models of one metric on one dataset; p-values over users are then those of the largest statistic under common
    resamples of the users (maxT), and letters mark the models that are not shown to differ."""
    alpha: float = Field(0.01, ge=1e-12, lt=1)
    """Significance level of the marks in tables, after correction."""
    confidence: float = Field(0.95, ge=0.01, le=1 - 1e-12)
    """Confidence level of intervals."""

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if self.interval == "bootstrap" and self.test in {"auto", "method"}:
            raise ValueError(
                f"interval = 'bootstrap' resamples users alone, but test = '{self.test}' also is about other seeds; set"
                " test = 'paired-t', 'randomisation' or 'wilcoxon', or interval = 'test'"
            )
        return self


NARROWEST = 1e-9
"""Minimum width of a range, relative to its ends: a narrower one has too few numbers for a search to distinguish."""


class Range(Settings):
    """Where a setting is searched, as an alternative to a list of values. Two whole numbers give whole numbers."""

    low: float
    """Lower end."""
    high: float
    """Upper end, above `low`."""
    log: bool = False
    """Whether the search is uniform in the logarithm of the setting; `low` must be above 0 then."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be less than high = {self.high:g}")
        if self.high - self.low <= NARROWEST * max(abs(self.low), abs(self.high)):
            raise ValueError(
                f"low = {self.low!r} and high = {self.high!r} are too close to each other to search between"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g} has no logarithm; set log = false, or low above 0")
        return self


def _searched_as(value: object) -> str | None:
    tables = (Mapping, Range, list, tuple)
    if isinstance(value, Mapping) and value and all(isinstance(one, tables) for one in value.values()):
        return "table"
    if isinstance(value, Mapping | Range):
        return "range"
    return "choices" if isinstance(value, list | tuple) else None


Choices = Annotated[tuple[float | bool | str, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Values of which one is chosen."""
_KIND = Discriminator(
    _searched_as,
    custom_error_type="searched",
    custom_error_message="input should be a table with low and high, or a list of values",
)
Searched = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], _KIND]
_Inner = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")] | Annotated[dict[str, Searched], Tag("table")],
    _KIND,
]
SearchTable = dict[
    str,
    Annotated[
        Annotated[Range, Tag("range")]
        | Annotated[Choices, Tag("choices")]
        | Annotated[dict[str, _Inner], Tag("table")],
        _KIND,
    ],
]
"""The searched settings of a model; the tables `training` and `tasks` are nested as in the model's own table."""


class Tune(Settings):
    """How `tune` and `run --tuned` search; what they optimise is `training.stop_metric` on the validation targets."""

    space: dict[str, SearchTable] = {}  # noqa: RUF012 (pydantic copies it)
    """Table for each model: a setting, and the list of values or the range in which it is searched, like `tau` or
    `training.learning_rate`. A model that is not named is searched in its default space, which the reference of its
    settings gives. These have six settings for all models that are trained by gradients, less those whose values other
    settings of the suite exclude."""
    before: bool = False
    """Whether `ipsrec-bench run` first tunes every row of the suite and then trains the best settings with
    `fresh_seeds`; the same as its option --tuned."""
    budget: Literal["equal trials", "equal seconds"] = "equal trials"
    """What every row gets the same amount of: `trials`, or `seconds` of training."""
    trials: int = Field(20, ge=1, le=1_000_000)
    """Number of trials of each row, those that are stopped early included."""
    seconds: float = Field(600.0, gt=0, le=1e9)
    """Seconds of training of each row, with `budget = "equal seconds"`. No trial begins that is expected to end after
    them, given the mean time of a trial, and there are at most 200 trials."""
    sampler: Literal["tpe", "random", "grid", "cma-es"] = "tpe"
    """How settings are chosen. `tpe`: tree-structured Parzen estimator. `random`: independently at random. `cma-es`:
    covariance matrix adaptation. `grid`: every combination once, of listed values or of `grid_points` of a range."""
    grid_points: int = Field(5, ge=2, le=1000)
    """Number of values that `grid` takes of a range."""
    pruner: Literal["percentile", "median", "hyperband", "wilcoxon", "none"] = "percentile"
    """Which trials are stopped early. `percentile`: those whose best value so far is outside the best quarter of the
    complete trials at the same epoch. `median`: those outside the better half. `hyperband`: successive halving.
    `wilcoxon`: those worse than the best trial over the seeds so far. `none`: no trial."""
    warm_up: int = Field(3, ge=0, le=1_000_000)
    """`percentile`, `median`: epochs for which no trial is stopped. `hyperband`: epochs of the first rung."""
    start_up: int = Field(5, ge=1, le=1_000_000)
    """Trials that are chosen at random and never stopped early, before the sampler and the pruner begin."""
    seeds: tuple[Seed, ...] = Field((1,), min_length=1)
    """Seeds of a trial. It is trained once with each, and its value is the mean; several seeds average out luck."""
    fresh_seeds: tuple[Seed, ...] = Field((101, 102, 103), min_length=1)
    """Seeds of the tuned suite; no trial may use them."""
    seed: Seed = 0
    """Seed of the sampler."""

    _distinct = field_validator("seeds", "fresh_seeds")(_distinct)

    @model_validator(mode="after")
    def _fresh(self) -> Self:
        if shared := set(self.seeds) & set(self.fresh_seeds):
            raise ValueError(f"fresh_seeds has {min(shared)}, which trials also use (seeds)")
        if self.pruner == "wilcoxon" and len(self.seeds) < MIN_WILCOXON:
            raise ValueError(f"pruner = 'wilcoxon' compares over seeds and needs at least {MIN_WILCOXON} of them")
        return self


class Controls(Settings):
    """Which comparisons with a changed dataset a suite adds, to find out what an improvement is made of."""

    providers: tuple[ChangedProviders, ...] = ()
    """Choices of providers, like those of a dataset. Each row that uses providers is trained once more with each of
    them, and a table shows what the data's own providers bring over it."""

    _distinct = field_validator("providers")(_distinct)

    @field_validator("providers", mode="before")
    @classmethod
    def _changed(cls, value: object) -> object:
        if isinstance(value, list | tuple) and AS_GIVEN in value:
            raise ValueError(
                "'as given' is no control: every row is trained with the data's own providers anyway; remove it"
            )
        return value


class Suite(Settings):
    """A benchmark: datasets x models x variants x seeds under one protocol."""

    name: Annotated[str, AfterValidator(check_suite_name)] | None = None
    """Name of the suite in the store and of its folder of reports; the stem of the file if not set."""
    title: str
    """Title of the report."""
    description: str = ""
    """What the suite asks, in a few sentences; the report begins with it."""
    seeds: tuple[Seed, ...] = Field((1, 2, 3), min_length=1)
    """Seeds with which every model and variant is trained."""
    datasets: dict[Name, dict[str, Any]] = Field(min_length=1)
    """List of names of known datasets, or a table for each dataset."""
    models: dict[Name, dict[str, Any]] = {}  # noqa: RUF012 (pydantic copies it)
    """List of registered names, or a table for each model with its settings and `type`, `training`, `variants`. May be
    empty for commands that only read data. `settings_from = "published"` in the table of a model or of a variant says
    that its settings are a publication's: tables say so, and `run --tuned` leaves them as they are."""
    modules: str = ""
    """Folder with the modules of your own models, relative to the suite's folder; that folder itself if not set."""
    scale: float = Field(1.0, gt=0, le=1)
    """Share of users that are read, chosen by a hash of their ids. Of a stand-in, the share of users, items and
    interactions."""
    stand_in: bool = False
    """Whether known datasets are replaced by made-up data of the same format and size, for those that have such a
    stand-in."""
    protocol: Protocol = Protocol()
    """What is held out, and how it is ranked."""
    protocols: dict[Name, dict[str, Any]] = {}  # noqa: RUF012 (pydantic copies it)
    """Further protocols: a table for each, with the settings that differ from `protocol`. Every row is also ranked
    under each of them. It is trained again only where the training differs."""
    controls: Controls = Controls()
    """Which rows are trained once more on changed data."""
    training: Training = Training()
    """How models are trained."""
    statistics: Statistics = Statistics()
    """Which comparisons are made, and how."""
    tune: Tune = Tune()
    """How `ipsrec-bench tune` searches."""

    @property
    def main_metric(self) -> str:
        """The metric of summaries and charts, like `ndcg@10`: the declared one, else the last that is shown."""
        return self.statistics.metric or self.protocol.shown[-1]

    @field_validator("datasets", "models", mode="before")
    @classmethod
    def _names_alone(cls, value: object) -> object:
        """Expand a list of names into tables without settings."""
        if not isinstance(value, list):
            return value
        if not all(isinstance(name, str) for name in value):
            raise ValueError("expected a list of names, or a table for each name")
        _distinct(tuple(value))
        return {name: {} for name in value}

    _distinct_seeds = field_validator("seeds")(_distinct)

    @model_validator(mode="after")
    def _metric_is_shown(self) -> Self:
        if self.statistics.metric and self.statistics.metric not in self.protocol.shown:
            raise ValueError(
                f"statistics.metric is '{self.statistics.metric}', which the tables do not have; they have"
                f" {', '.join(self.protocol.shown)} (protocol.metrics and protocol.cutoffs)"
            )
        return self
