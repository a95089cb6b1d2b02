"""A folder as a source: one folder per class, with or without split folders around them."""
