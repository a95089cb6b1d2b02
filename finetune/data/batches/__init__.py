"""Batches of images: which images they take, which process reads them, and the tensors they become."""
