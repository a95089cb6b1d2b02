"""What `scripts/benchmark` is made of: the images, the contestants, their processes, and the report."""
