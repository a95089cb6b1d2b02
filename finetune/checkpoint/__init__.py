"""The files of a checkpoint: tensors, the card that describes the network, and a manifest of digests."""
