"""Out-of-memory handling of a cell: the same work is retried once, with half the tile."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from ipsrec_bench.errors import ModelError
from ipsrec_bench.ranking.rank import ITEMS_PER_TILE, USERS_PER_BATCH
from ipsrec_bench.training.softmax import ROWS, TILE

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is an out-of-memory error: of CUDA, of torch's allocator on a CPU, or of numpy."""
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


class MemorySaver:
    """The tile size of one cell: whole, or half once memory ran out."""

    def __init__(self) -> None:
        self.tile_parts = 1
        """Number of parts into which tiles and batches of users are split."""

    def spare(self, work: Callable[[int], T]) -> T:
        """Run `work`, a function of `tile_parts`; if memory runs out, retry once per cell with half the tile.

        Raises:
            ModelError: memory runs out with half the tile, too.
        """
        try:
            return work(self.tile_parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.tile_parts > 1:
                raise ModelError(
                    f"memory does not suffice, neither with tiles of {ROWS} targets by {TILE} items in training and"
                    f" {USERS_PER_BATCH} users by {ITEMS_PER_TILE} items in ranking nor with half of each; choose a"
                    " smaller training.batch_size, max_length or embedding_size, or run fewer jobs at a time"
                ) from error
        self.tile_parts = 2
        # Not in the handler: the error there still holds the frames, and these hold what filled the memory.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.spare(work)
