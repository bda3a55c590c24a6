"""From user vectors to ranks, and from ranks to metrics."""
