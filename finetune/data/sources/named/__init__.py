"""Data sets that a recipe names: the known sets, torchvision's sets and drawn images."""
