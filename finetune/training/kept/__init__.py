"""What is computed once in a training: decoded pictures, and what frozen layers make of them."""
