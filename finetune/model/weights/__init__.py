"""Weights from a file into a network: reading, matching names and shapes, and a report of the outcome."""
