"""Optimizer steps on batches: the loop, optimizers, learning-rate schedules, and regularization."""
