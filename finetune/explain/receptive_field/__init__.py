"""What each place of a map sees of the image: interval arithmetic over the network's graph."""
