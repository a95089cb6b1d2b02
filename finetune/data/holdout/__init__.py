"""Which images are held out: splits, groups that stay together, folds."""
