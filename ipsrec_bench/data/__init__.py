"""From raw rows to prepared sequences, splits and batches."""
