"""Every reference that our models are compared with; one file for each source of references."""

from ipsrec_bench.testing.references import (
    backbones,
    diff,
    duorec,
    graphs,
    ipsrec,
    liverec,
    mssr,
    recbole,
    recbole_masked,
    side_information,
)
from ipsrec_bench.testing.references.api import Reference

REFERENCES: tuple[Reference, ...] = (
    *ipsrec.REFERENCES,
    *backbones.REFERENCES,
    *diff.REFERENCES,
    *duorec.REFERENCES,
    *graphs.REFERENCES,
    *liverec.REFERENCES,
    *mssr.REFERENCES,
    *recbole.REFERENCES,
    *recbole_masked.REFERENCES,
    *side_information.REFERENCES,
)
"""In this order; the first that matches a file is used."""
