"""Use a trained network: predict, sort images by class, and export to other formats."""
