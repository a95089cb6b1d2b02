"""Backbone libraries behind one protocol: torchvision, timm and the packaged EfficientNet-Lite0."""
