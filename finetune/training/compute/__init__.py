"""What a step runs on: device, number format, kernels, memory, and how many images fit."""
