"""The names of the files in a run directory. Imports nothing, so that refusing a directory stays fast."""

RECIPE = "recipe.yaml"
RESOLVED = "resolved.yaml"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.json"
SPLITS = "splits.csv"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CURVES = "curves.png"
REPORT = "report.html"
WORKING_POINT = "working_point.json"
CHECKPOINTS = "checkpoints"
EXPORT = "export"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
# Everything that a run writes. `--overwrite` removes these and nothing else.
OWN_FILES = (RECIPE, RESOLVED, ENVIRONMENT, WEIGHTS, SPLITS, METRICS, TIMING, CURVES, REPORT, WORKING_POINT)
OWN_FOLDERS = (CHECKPOINTS, EXPORT, TENSORBOARD)
