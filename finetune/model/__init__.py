"""A source network to the network to train: weights, layers, head, freezing, parameter groups."""
