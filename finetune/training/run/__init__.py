"""A run on disk: its directory and who may write there, checkpoints, and going on from them."""
