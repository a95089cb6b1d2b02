"""What is made of a network's logits: calibrated probabilities, and what is decided by them. Torch-free."""
