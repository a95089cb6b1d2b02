"""The layers of a network: its traced forward graph, and the cuts that number it for freezing."""
