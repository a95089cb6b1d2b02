"""One image: decoded safely, brought to the size that a network takes, augmented."""
