"""A run on disk: its directory and lock, its position, and how a run is resumed or extended."""
