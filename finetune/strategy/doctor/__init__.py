"""Examine a data set before anything is trained on it: every fault with its kind and its files. No torch."""
