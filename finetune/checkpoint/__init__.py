"""A checkpoint's files: tensors, the card that describes the network, and a manifest of their digests."""
