"""Search for settings on the validation targets."""
