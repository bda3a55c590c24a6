"""Every model by name: the toolkit's, those of installed packages, and your own classes.

Nothing here imports torch until a model is built, so a suite of the toolkit's models is checked in a moment.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.models import configs
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.own_code import hash_of_code, imported, own_class

if TYPE_CHECKING:
    from ipsrec_bench.models.api import Model, Sizes

ENTRY_POINTS = "ipsrec_bench.models"
"""The entry-point group through which a package adds models: name = "module:Class"."""


@dataclass(frozen=True)
class ModelEntry:
    """What is known about a model before it is built."""

    title: str
    """Its name in tables."""
    config: type[ModelConfig]
    path: str
    """`module:Class`, imported when the model is built."""
    causal: bool
    """Whether it can predict at every position in one pass."""
    uses_providers: bool
    counts: bool = False
    """Whether it is fitted by counting instead of gradients."""
    deterministic: bool = False
    """Whether no seed changes its ranks."""
    uses_times: bool = False
    """Whether histories must come with times."""
    uses_users: bool = False
    """Whether it knows users by id, so that it cannot rank for users without training interactions."""
    code: str = ""
    """Hash of the source files of a model outside the toolkit: a changed file gives new cells."""

    def packs(self, config: ModelConfig) -> bool:
        """Whether the model with these settings may be trained on packed windows."""
        return self.causal and config.packs


def _entry(
    title: str,
    path: str,
    config: type[ModelConfig],
    *,
    causal: bool = True,
    providers: bool = False,
    times: bool = False,
    users: bool = False,
) -> ModelEntry:
    return ModelEntry(title, config, f"{__package__}.{path}", causal, providers, uses_times=times, uses_users=users)


def _counting(
    title: str, path: str, config: type[ModelConfig] = ModelConfig, *, providers: bool = False, times: bool = False
) -> ModelEntry:
    return ModelEntry(
        title,
        config,
        f"{__package__}.{path}",
        causal=True,
        uses_providers=providers,
        counts=True,
        deterministic=True,
        uses_times=times,
    )


REGISTRY: dict[str, ModelEntry] = {
    # The floor: models that count.
    "pop": _counting("Pop", "pop:Pop"),
    "recent-pop": _counting("RecentPop", "recent_pop:RecentPop", configs.RecentPopConfig),
    "repeat": _counting("Repeat", "repeat:Repeat"),
    "markov": _counting("Markov", "markov:Markov"),
    "item-knn": _counting("ItemKNN", "item_knn:ItemKNN", configs.ItemKNNConfig),
    "v-sknn": _counting("V-SKNN", "v_sknn:VSKNN", configs.SessionKNNConfig),
    "stan": _counting("STAN", "stan:STAN", configs.STANConfig, times=True),
    "sequential-rules": _counting("SequentialRules", "sequential_rules:SequentialRules", configs.SequentialRulesConfig),
    "provider-pop": _counting("ProviderPop", "provider_pop:ProviderPop", configs.ProviderPopConfig, providers=True),
    # Baselines of the paper's tables, blind to providers.
    "gru4rec": _entry("GRU4Rec (RecBole)", "gru4rec:GRU4Rec", configs.GRU4RecConfig),
    "caser": _entry("Caser", "caser:Caser", configs.CaserConfig, causal=False, users=True),
    "sasrec": _entry("SASRec", "sasrec:SASRec", configs.TransformerConfig),
    "sr-gnn": _entry("SR-GNN", "sr_gnn:SRGNN", configs.SRGNNConfig, causal=False),
    # Further models that the paper cites, blind to providers.
    "nextitnet": _entry("NextItNet", "nextitnet:NextItNet", configs.NextItNetConfig),
    "gc-san": _entry("GC-SAN", "gc_san:GCSAN", configs.GCSANConfig, causal=False),
    "cl4srec": _entry("CL4SRec", "cl4srec:CL4SRec", configs.CL4SRecConfig),
    "duorec": _entry("DuoRec", "duorec:DuoRec", configs.DuoRecConfig),
    "skiprec": _entry("SkipRec", "skiprec:SkipRec", configs.SkipRecConfig),
    "sgl": _entry("SGL", "sgl:SGL", configs.SGLConfig, causal=False, users=True),
    "bert4rec": _entry("BERT4Rec", "bert4rec:BERT4Rec", configs.BERT4RecConfig, causal=False),
    # Backbones of today, blind to providers.
    "esasrec": _entry("eSASRec", "esasrec:ESASRec", configs.ESASRecConfig),
    "hstu": _entry("HSTU", "hstu:HSTU", configs.HSTUConfig, times=True),
    "lrurec": _entry("LRURec", "lrurec:LRURec", configs.LRURecConfig),
    "tisasrec": _entry("TiSASRec", "tisasrec:TiSASRec", configs.TiSASRecConfig, times=True),
    "liverec": _entry("LiveRec", "liverec:LiveRec", configs.LiveRecConfig, times=True),
    # Baselines that see providers.
    "gru4rec-f": _entry("GRU4Rec-F", "gru4rec_f:GRU4RecF", configs.GRU4RecConfig, providers=True),
    "sasrec-f": _entry("SASRec-F", "sasrec_f:SASRecF", configs.SASRecFConfig, providers=True),
    "fdsa": _entry("FDSA", "fdsa:FDSA", configs.FDSAConfig, providers=True),
    "s3rec": _entry("S3-Rec", "s3rec:S3Rec", configs.S3RecConfig, providers=True),
    "nova": _entry("NOVA", "nova:NOVA", configs.TransformerConfig, providers=True),
    "dif-sr": _entry("DIF-SR", "dif_sr:DIFSR", configs.DIFSRConfig, providers=True),
    "mssr": _entry("MSSR", "mssr:MSSR", configs.MSSRConfig, providers=True),
    "diff": _entry("DIFF", "diff:DIFF", configs.DIFFConfig, causal=False, providers=True),
    # The paper's models.
    "ipsrec-s": _entry("IPSRec-S", "ipsrec_s:IPSRecS", configs.IPSRecSConfig, providers=True),
    "ipsrec-c": _entry("IPSRec-C", "ipsrec_c:IPSRecC", configs.IPSRecCConfig, providers=True),
}


def model_entry(name: str) -> ModelEntry:
    """Return the entry of the model `name`: one of the toolkit's, an entry point's, or a class as `module:Class`.

    Raises:
        ModelError: there is no such model, or its class does not declare what a model must.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    installed = {point.name: point for point in _installed()}
    if name in installed:
        point = installed[name]
        version = point.dist.version if point.dist else ""
        return _own_entry(name, f"{point.module}:{point.attr}", version)
    if ":" in name:
        return _own_entry(name, name)
    known = [*REGISTRY, *installed]
    raise ModelError(
        f"there is no model '{name}'{did_you_mean(name, known) or f'; known: {listed(known)}'}; write your own class"
        " as 'module:Class'"
    )


def build_model(name: str, config: ModelConfig, sizes: "Sizes") -> "Model":
    """Import and build the model `name`, with freshly drawn weights."""
    model: Model = imported(model_entry(name).path)(config, sizes)
    return model


def is_installed(name: str) -> bool:
    """Return whether `name` is a model of the toolkit or of an installed package."""
    return name in REGISTRY or any(point.name == name for point in _installed())


def module_at(module: str, folder: Path | None = None) -> Path | None:
    """Return the file of a top-level module, or of its package, without importing it; None if there is none.

    Args:
        module: its name.
        folder: where to look; by default Python's search path.
    """
    try:
        spec = find_spec(module) if folder is None else PathFinder.find_spec(module, [str(folder)])
    except (ImportError, ValueError):  # not a module name, or a module without a file
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _installed() -> Iterator[EntryPoint]:
    yield from entry_points(group=ENTRY_POINTS)


def _own_entry(name: str, path: str, version: str = "") -> ModelEntry:
    """Return the entry of a class outside the toolkit, from the class's declarations."""
    from ipsrec_bench.models.api import CountingModel, SequentialModel

    found = own_class(name, path, (SequentialModel, CountingModel))
    counts = issubclass(found, CountingModel)
    deterministic = issubclass(found, CountingModel) and found.deterministic
    config = getattr(found, "config_type", None)
    base = ModelConfig if counts else configs.NeuralConfig
    if not (isinstance(config, type) and issubclass(config, base)):
        raise ModelError(f"'{name}' must set 'config_type' to its settings class, derived from {base.__name__}")
    try:
        pickle.dumps(config)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise ModelError(
            f"'{name}': worker processes cannot import its settings class {config.__qualname__}; define it at the top"
            " level of a module"
        ) from None
    return ModelEntry(
        title=found.title or found.__name__,
        config=config,
        path=path,
        causal=found.causal or counts,
        uses_providers=found.uses_providers,
        counts=counts,
        deterministic=deterministic,
        uses_times=found.uses_times,
        uses_users=found.uses_users,
        code=hash_of_code(found, version),
    )
