"""Evaluate a network: logits, metrics with intervals, and their text for the screen."""
