"""Images on disk to batches: sources, splits, safe decoding, preprocessing, augmentation, loaders."""
