"""The cache folder: where it is, what is in it, and decoded images."""
