"""Every reference that our models are compared with; one file for each source of references."""

from ipsrec_bench.testing.references import backbones, ipsrec, recbole
from ipsrec_bench.testing.references.api import Reference

REFERENCES: tuple[Reference, ...] = (*ipsrec.REFERENCES, *recbole.REFERENCES, *backbones.REFERENCES)
"""In this order; the first that matches a file is used."""
