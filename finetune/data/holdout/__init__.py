"""Splits and folds: which images are held out, and which groups stay together."""
