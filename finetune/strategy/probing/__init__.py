"""Shallow classifiers on frozen features: probes of one network, and the ranking of several."""
