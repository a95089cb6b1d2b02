"""Several runs of one recipe or of several: seeds, folds, comparisons, and the learning-rate range test."""
