"""What is kept on disk between runs: where, how much, and decoded images."""
