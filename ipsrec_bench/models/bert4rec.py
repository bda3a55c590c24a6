"""BERT4Rec: sequential recommendation with a bidirectional Transformer (Sun et al., CIKM 2019).

The model learns to restore hidden items (the task `cloze`). With the mask token M in place of hidden items:

    h = Transformer(item + position)       every position sees all real ones
    s = LayerNorm(GELU(W h + b))
    score of item v = s . e_v + c_v         the item embeddings e, and a bias c_v for each item

The next item is predicted as one more hidden item: M is appended to the history, which loses its oldest item only if
it is full. The bias is one more dimension: 1 in the user vectors, c in the item vectors.

Layers are those of RecBole's Transformer, which has the sizes, the order of operations and the activation of the
authors' (FeiSun/BERT4Rec). RecBole 1.2.1 differs in these, which `preset = "recbole"` selects:

- It hides items in prefixes only, so a user's last training item is never learnt (`samples`). The authors hide items in
  whole training histories, in overlapping windows of long ones, ten times with other items hidden, and once more with
  the last item hidden (`copies`, `stride`, `last_share`). RecBole hides the last item in half of the batches.
- To predict, it always drops the first column, also of histories that are not full: a history of one item becomes the
  mask token alone (`prediction`).
- The loss counts only places whose index is above 0, because 0 also fills up its list of places: a hidden first item is
  never learnt. It counts at most int(mask_ratio * L) places of a history; further ones are hidden in vain (`counted`).
  If no place of a batch counts, RecBole's loss is 0 / 0; here it is 0.
- Padding is one more class of the softmax (`padding_class`).

The authors also use weight decay, warm-up and a linearly falling learning rate (1e-4, 400,000 steps of 256 histories);
here the optimiser is that of the training settings. It needs many more epochs than a causal model (Petrov and
Macdonald, RecSys 2022).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import MaskedEncoder, SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import BERT4RecConfig
from ipsrec_bench.models.layers import (
    INIT_STD,
    LAYER_NORM_EPS,
    SequenceEncoder,
    embed_with_mask,
    init_weights,
    real_positions,
)


class BERT4Rec(SequentialModel, MaskedEncoder):
    """A bidirectional Transformer over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: BERT4RecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.max_length, self.mask_token = sizes.max_length, sizes.mask_token
        self.shifted = config.prediction == "shifted"
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.mask_embedding = nn.Parameter(torch.empty(d))
        self.encoder = SequenceEncoder(config, sizes.max_length)
        self.output = nn.Linear(d, d)
        self.output_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.item_bias = nn.Parameter(torch.zeros(sizes.items + 1))
        self.apply(init_weights)
        nn.init.normal_(self.mask_embedding, std=INIT_STD)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d + 1]`: the state of a mask token behind the history.

        Raises:
            ValueError: `every_position` is set; the model is not causal.
        """
        if every_position:
            raise ValueError("BERT4Rec attends to both sides, so it has no user vector at every position")
        asked = self.with_mask_appended(histories)
        return Views(self.encode_masked(asked, asked.newest)[:, 0])

    def encode_masked(self, histories: Histories, read: Tensor | None = None) -> Tensor:
        """Return the states `[B, L, d + 1]`, or `[B, R, d + 1]` at the positions `read [B, R]`."""
        items = embed_with_mask(self.item_embedding, self.mask_embedding, histories.items)
        states = self.encoder(items, read, real_positions(histories))
        return F.pad(self.output_norm(F.gelu(self.output(states))), (0, 1), value=1.0)

    def item_vectors(self) -> Tensor:
        """Return the item embeddings with their biases, `[items + 1, d + 1]`."""
        return torch.cat([self.item_embedding.weight, self.item_bias[:, None]], dim=1)

    def with_mask_appended(self, histories: Histories) -> Histories:
        """Return the items of the histories with the mask token behind them; providers are left out."""
        lengths, kept = histories.lengths, histories.items.shape[1]
        items = F.pad(histories.items, (0, 1)).scatter(1, lengths[:, None], self.mask_token)
        if self.shifted:
            items = items[:, 1:]
        elif kept == self.max_length:
            full = lengths == self.max_length
            items = torch.where(full[:, None], items[:, 1:], items[:, :-1])
            lengths = lengths + 1 - full.long()
        else:
            lengths = lengths + 1
        return Histories(histories.users, items, torch.zeros_like(items), lengths)
