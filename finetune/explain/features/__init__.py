"""Images by their features: the nearest ones, a map of a split, doubtful labels of a run."""
