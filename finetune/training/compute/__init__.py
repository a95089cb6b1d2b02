"""Device, precision, kernels and memory of training steps, and the number of images that fit."""
