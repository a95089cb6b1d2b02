"""A CSV file as a source: one row per image with its path, its label and perhaps its split."""
