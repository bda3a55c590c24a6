"""DuoRec: contrastive learning against representation degeneration (Qiu et al., WSDM 2022).

SASRec with two auxiliary contrastive losses. A history has a second view from a second pass with other dropout
(unsupervised), and a third from another training history with the same target (supervised):

    loss = next item + lambda NT-Xent(user, second pass) + lambda_sem NT-Xent(user, same target).

The released code differs (`preset = "released"`). Its default `us_x` trains one contrastive term only,
lambda_sem NT-Xent(second pass, same target), and ignores lambda. Its samples are prefixes, other prefixes of the same
user are negatives, and padding is a class of the softmax. Its index of targets is cached in a file whose name
does not say how the data were filtered and split; ours is built from the training part of the split in use.
"""

from ipsrec_bench.models.sasrec import SASRec


class DuoRec(SASRec):
    """SASRec; what differs are its tasks."""
