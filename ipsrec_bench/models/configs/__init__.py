"""The settings of every model, kept free of torch so that a suite is checked without importing it.

Defaults are the paper's and, where it is silent, those of the code that produced its tables: RecBole 1.0 for the
baselines, the released code for IPSRec. What is searched by
default is the class variable `search` of each class, whose docstring names the source of its ranges.
"""

from ipsrec_bench.models.configs.adaptive import SkipRecConfig
from ipsrec_bench.models.configs.backbones import (
    ESASRecConfig,
    HSTUConfig,
    LiveRecConfig,
    LRURecConfig,
    TiSASRecConfig,
)
from ipsrec_bench.models.configs.base import ModelConfig, NeuralConfig, TransformerConfig
from ipsrec_bench.models.configs.contrast import CL4SRecConfig, DuoRecConfig
from ipsrec_bench.models.configs.counting import (
    ItemKNNConfig,
    ProviderPopConfig,
    RecentPopConfig,
    SequentialRulesConfig,
    SessionKNNConfig,
    STANConfig,
)
from ipsrec_bench.models.configs.graphs import SGLConfig
from ipsrec_bench.models.configs.ipsrec import ContrastiveConfig, IPSRecCConfig, IPSRecConfig, IPSRecSConfig
from ipsrec_bench.models.configs.masked import BERT4RecConfig, S3RecConfig
from ipsrec_bench.models.configs.providers import DIFSRConfig, FDSAConfig, ProviderPredictionConfig, SASRecFConfig
from ipsrec_bench.models.configs.sequences import CaserConfig, GCSANConfig, GRU4RecConfig, NextItNetConfig, SRGNNConfig
from ipsrec_bench.models.configs.streams import DIFFConfig, MSSRConfig

__all__ = [
    "BERT4RecConfig",
    "CL4SRecConfig",
    "CaserConfig",
    "ContrastiveConfig",
    "DIFFConfig",
    "DIFSRConfig",
    "DuoRecConfig",
    "ESASRecConfig",
    "FDSAConfig",
    "GCSANConfig",
    "GRU4RecConfig",
    "HSTUConfig",
    "IPSRecCConfig",
    "IPSRecConfig",
    "IPSRecSConfig",
    "ItemKNNConfig",
    "LRURecConfig",
    "LiveRecConfig",
    "MSSRConfig",
    "ModelConfig",
    "NeuralConfig",
    "NextItNetConfig",
    "ProviderPopConfig",
    "ProviderPredictionConfig",
    "RecentPopConfig",
    "S3RecConfig",
    "SASRecFConfig",
    "SGLConfig",
    "SRGNNConfig",
    "STANConfig",
    "SequentialRulesConfig",
    "SessionKNNConfig",
    "SkipRecConfig",
    "TiSASRecConfig",
    "TransformerConfig",
]
