"""What a recipe's `data.source` names: images with their classes, wherever they come from."""
