"""Logits to numbers worth trusting."""
