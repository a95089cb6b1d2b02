"""A run to something in use: prediction and export."""
