"""The result store: one DuckDB file with every user's rank."""
