"""What a network looks at: heat-maps, pictures of layers, maps of features, nearest images."""
