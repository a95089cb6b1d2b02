"""Advice: measures images and a source network, and chooses how to fine-tune."""
