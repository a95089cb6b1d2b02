"""What is computed once in a training: decoded images, and what frozen layers make of them."""
