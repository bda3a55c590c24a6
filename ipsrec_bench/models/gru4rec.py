"""GRU4Rec as in RecBole: session-based recommendations with recurrent neural networks (Hidasi et al., ICLR 2016).

RecBole follows Tan, Xu and Liu ("Improved Recurrent Neural Networks for Session-based Recommendations", DLRS 2016), and
the IPSRec paper compares with its version: dropout on the item embeddings, a GRU without biases, a dense layer back to
the embedding's size, cross-entropy over all items. The GRU is PyTorch's, which applies the reset gate after the product
with U_n; the paper applies it before:

    r = sigmoid(W_r x_t + U_r h_{t-1})             z = sigmoid(W_z x_t + U_z h_{t-1})
    n = tanh(W_n x_t + r * U_n h_{t-1})            h_t = (1 - z) * n + z * h_{t-1}

The user vector is W_d h_t + b_d; scores are dot products with the item embeddings.

This is not the official GRU4Rec (github.com/hidasib/GRU4Rec), and says little about it: Hidasi and Czapp ("The Effect
of Third Party Implementations on Reproducibility", RecSys 2023) compared six reimplementations with the official one,
and found that they rank worse, some of them far worse. The official code differs in

- the loss: BPR-max or cross-entropy over the target and sampled negatives, not a softmax over all items;
- sampling: negatives are the other targets of the batch, and further items drawn by a power of their popularity;
- batches: sessions run in parallel, one step of each per batch. The state is carried over from step to step, and the
  gradient ends there;
- the output: scores are products of the state itself with output embeddings, plus an item bias. With constrained
  embeddings, these are the input embeddings; without, inputs are one-hot or have a table of their own;
- the optimiser: Adagrad, with momentum in some settings.
"""

from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import GRU4RecConfig


def build_gru(config: GRU4RecConfig) -> nn.GRU:
    """Return the GRU of `config`, without biases, initialised as in RecBole (Xavier uniform)."""
    gru = nn.GRU(config.embedding_size, config.hidden_size, config.n_layers, bias=False, batch_first=True)
    for weight in gru.parameters():
        nn.init.xavier_uniform_(weight)
    return gru


def build_embedding(ids: int, d: int) -> nn.Embedding:
    """Return an embedding of the ids 1 to `ids`, initialised as in RecBole (Xavier normal); row 0 is zero."""
    embedding = nn.Embedding(ids + 1, d, padding_idx=0)
    nn.init.xavier_normal_(embedding.weight)
    nn.init.zeros_(embedding.weight[0].detach())
    return embedding


class GRU4Rec(SequentialModel):
    """A GRU over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: GRU4RecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        self.item_embedding = build_embedding(sizes.items, config.embedding_size)
        self.dropout = Dropout(config.dropout)
        self.gru = build_gru(config)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        hidden, _ = self.gru(self.dropout(self.item_embedding(histories.items)))  # [B, L, hidden]
        return Views(self.dense(hidden if every_position else histories.last(hidden)))

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
