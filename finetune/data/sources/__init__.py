"""Data sources: folders, CSV files and named data sets, all read as a `Source`."""
