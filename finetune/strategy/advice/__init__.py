"""Advice: what is measured of images and a source network, the rule that reads it, the recipe it writes."""
