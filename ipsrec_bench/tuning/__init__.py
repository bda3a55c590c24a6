"""Hyperparameter search on the validation targets."""
