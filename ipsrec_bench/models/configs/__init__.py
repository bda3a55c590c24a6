"""The settings of every model, kept free of torch so that a suite is checked without importing it.

Defaults are the paper's and, where it is silent, those of the code that produced its tables: RecBole 1.0 for the
baselines, the released code for IPSRec. A search range is declared on its field.
"""

from ipsrec_bench.models.configs.backbones import ESASRecConfig, HSTUConfig, LRURecConfig, TiSASRecConfig
from ipsrec_bench.models.configs.base import ModelConfig, NeuralConfig, TransformerConfig
from ipsrec_bench.models.configs.counting import ItemKNNConfig, ProviderPopConfig, RecentPopConfig
from ipsrec_bench.models.configs.ipsrec import ContrastiveConfig, IPSRecCConfig, IPSRecConfig, IPSRecSConfig
from ipsrec_bench.models.configs.providers import ProviderPredictionConfig, SASRecFConfig
from ipsrec_bench.models.configs.sequences import CaserConfig, GRU4RecConfig, SRGNNConfig

__all__ = [
    "CaserConfig",
    "ContrastiveConfig",
    "ESASRecConfig",
    "GRU4RecConfig",
    "HSTUConfig",
    "IPSRecCConfig",
    "IPSRecConfig",
    "IPSRecSConfig",
    "ItemKNNConfig",
    "LRURecConfig",
    "ModelConfig",
    "NeuralConfig",
    "ProviderPopConfig",
    "ProviderPredictionConfig",
    "RecentPopConfig",
    "SASRecFConfig",
    "SRGNNConfig",
    "TiSASRecConfig",
    "TransformerConfig",
]
