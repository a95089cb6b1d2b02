"""Caches of a training: decoded images, and the features of frozen layers."""
