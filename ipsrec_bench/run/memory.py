"""What happens when a cell's memory does not suffice: the same work once more, with half the tile."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from ipsrec_bench.errors import ModelError
from ipsrec_bench.ranking.rank import ITEMS_PER_TILE, USERS_PER_BATCH
from ipsrec_bench.training.softmax import ROWS, TILE

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory could not be had: CUDA's, of torch's allocator on a CPU, or numpy's."""
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


class MemorySaver:
    """The memory of one cell: whole tiles, or half of them once it has not sufficed."""

    def __init__(self) -> None:
        self.tile_parts = 1
        """Into how many parts tiles and batches of users are cut."""

    def spare(self, work: Callable[[int], T]) -> T:
        """Do `work`, a function of `tile_parts`; where memory does not suffice, once in a cell, do it again.

        Raises:
            ModelError: memory does not suffice for half the tile either.
        """
        try:
            return work(self.tile_parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.tile_parts > 1:
                raise ModelError(
                    f"memory does not suffice, neither with tiles of {ROWS} targets by {TILE} items in training and"
                    f" {USERS_PER_BATCH} users by {ITEMS_PER_TILE} items in ranking nor with half of each; a smaller"
                    " training.batch_size, max_length or embedding_size needs less, as fewer jobs at a time do"
                ) from error
        self.tile_parts = 2
        # Not in the handler: until it is left, the error holds the frames, and these what filled the memory.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.spare(work)
