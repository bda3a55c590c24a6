"""What to run: the suite's schema, its file, and its expansion into cells."""
