"""Evaluates a model: metrics, confidence intervals, calibration, mistakes, plots and the report of a run."""
