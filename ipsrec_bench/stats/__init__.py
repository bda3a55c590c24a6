"""Statistics over arrays: paired comparisons, corrections, effect sizes."""
