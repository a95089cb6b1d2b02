"""What a recipe's `data.source` names: pictures with their classes, wherever they come from."""
