"""One picture: decoded safely, resized as the network wants it, augmented."""
