"""Experiments with several runs: seeds, folds, comparisons, training from scratch, and the range test."""
