"""One image: decode it, preprocess it to the size that a network takes, augment it."""
