"""The recipe: its schema, its reader, and the names that it may use. Nothing here imports torch."""
