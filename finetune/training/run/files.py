"""The names of what is in a run's directory. Imports nothing, so that a refusal comes at once."""

RECIPE = "recipe.yaml"
RESOLVED = "resolved.yaml"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.json"
SPLITS = "splits.csv"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CHECKPOINTS = "checkpoints"
EXPORT = "export"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
# All that a run ever writes: `--overwrite` removes these and nothing else.
OWN_FILES = (RECIPE, RESOLVED, ENVIRONMENT, WEIGHTS, SPLITS, METRICS, TIMING)
OWN_FOLDERS = (CHECKPOINTS, EXPORT, TENSORBOARD)
