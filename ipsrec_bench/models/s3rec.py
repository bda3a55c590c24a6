"""S3-Rec: self-supervised pretraining with the providers of items, then SASRec (Zhou et al., CIKM 2020).

The main stage is SASRec. Before it, the same Transformer is pretrained without its causal mask, on histories F in which
items are hidden. With s_t the state at place t, e_v the embedding of item v, a_p that of provider p, sigma the logistic
function, and W, b of each task its own:

    AAP   binary cross-entropy of (W s_t + b) . a_p over all providers p, at visible items     (weight 0.2)
    MIP   -log sigma(sigma((W s_t + b) . e_pos) - sigma((W s_t + b) . e_neg)), at hidden items  (weight 1)
    MAP   as AAP, at hidden items                                                               (weight 1)
    SP    as MIP, of a history whose segment is hidden, with that segment and one of another history (weight 0.5)

The double sigma is the paper's eq. 7 with one negative. A segment's vector is the state at the last place of a history
in which all but the segment is hidden.

Here the provider is an item's only attribute. An unknown provider is a case without a positive, as an item without
attributes is in the reference, and it is no class. The released losses are sums over a batch; here they are divided by
its number of histories, so that they do not grow with it. This keeps their ratio, for which the weights were chosen
(means over places and providers would not), and Adam's steps do not depend on the common scale, so a learning rate
means the same.

Differences of RecBole 1.2.1, which has the sizes and weights of the authors' code:

- It pads on the left in pretraining and on the right afterwards, so each position embedding is used for other places
  than it was pretrained for. The authors pad on the left in both; here both stages count from the first item.
  `pretrain_padding = "left"` is RecBole's.
- It keeps the mask token as a class of the main stage's softmax; here it is never one.
- It can draw the mask token as a negative item, and a negative segment that begins in one history and ends in the next.
  Here negative items are those that a history lacks, and negative segments lie within one other history of the batch.
- Histories of one item are their own context and both segments, a constant loss; here they are left out.
- Both references pretrain on every prefix of a training history, and the authors always hide its last item; here the
  samples are the whole training histories.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import AttributeEncoder, SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import S3RecConfig
from ipsrec_bench.models.layers import INIT_STD, SequenceEncoder, embed_with_mask, init_weights, real_positions

PROJECTED = ("attribute-prediction", "masked-item", "masked-attribute", "segment")
"""The tasks of pretraining, each of which has a projection."""


class S3Rec(SequentialModel, AttributeEncoder):
    """SASRec, pretrained with providers; it does not read those of a history."""

    mixed_precision = True

    def __init__(self, config: S3RecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.max_length, self.left = sizes.max_length, config.pretrain_padding == "left"
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.encoder = SequenceEncoder(config, sizes.max_length)
        self.mask_embedding = nn.Parameter(torch.empty(d))
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.projections = nn.ModuleDict({task: nn.Linear(d, d) for task in PROJECTED})
        self.apply(init_weights)
        nn.init.normal_(self.mask_embedding, std=INIT_STD)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position, as SASRec does."""
        items = self.item_embedding(histories.items)
        if every_position:
            return Views(self.encoder(items))
        return Views(self.encoder(items, histories.newest)[:, 0])

    def encode_masked(self, histories: Histories, read: Tensor | None = None) -> Tensor:
        """Return the states `[B, L, d]`, or `[B, R, d]` at the positions `read [B, R]`, from both sides."""
        items, positions = embed_with_mask(self.item_embedding, self.mask_embedding, histories.items), None
        if self.left:  # padding comes first: a history of n items has the positions from L - n on
            counted = torch.arange(items.shape[1], device=items.device) - histories.lengths[:, None]
            positions = counted % self.max_length
        out: Tensor = self.encoder(items, read, real_positions(histories), positions)
        return out

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def project(self, task: str, states: Tensor) -> Tensor:
        """Map states `[..., d]` by the projection of `task`, one of `PROJECTED`."""
        out: Tensor = self.projections[task](states)
        return out

    def provider_vectors(self) -> Tensor:
        """Return the provider embeddings `[providers + 1, d]`."""
        return self.provider_embedding.weight
