"""The parts of `scripts/benchmark`: the images, the contestants, their processes, and the report."""
