"""Fitting a model: samples, objective, loop."""
