"""The browser of a store in the terminal, `ipsrec-bench ui`: screens over typed queries, a report's content, events."""
