"""Advice: what is measured of pictures and a source network, the rule that reads it, the recipe it writes."""
