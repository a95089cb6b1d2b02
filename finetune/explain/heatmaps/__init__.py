"""Where in an image lies what speaks for a class."""
