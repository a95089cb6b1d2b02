"""The pages about several runs: compared, of several seeds, of the folds of a cross-validation."""
