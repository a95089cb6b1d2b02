"""The version of the package, for every room to import."""

__version__ = "0.1.0"
