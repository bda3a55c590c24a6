"""What a person sees while a suite runs: pure functions from events to renderables."""
