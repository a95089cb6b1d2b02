"""What `scripts/benchmark` is made of: the pictures, the contestants, their processes, and the report."""
