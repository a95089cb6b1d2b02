"""Features of frozen layers: networks cut into prefix and suffix, cached features, and solved heads."""
