"""Reading and writing files safely: regular files only, and whole or not at all."""
