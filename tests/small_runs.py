"""Small runs on the CPU: what they report, and the files whose bits a repetition shares."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.recipe.load import parse_recipe
from finetune.training.fit import fit
from finetune.training.progress import Progress
from finetune.training.run.directory import RunDir

BASE = """\
seed: 5
data: {source: SOURCE, image_size: 32, resize: 36, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none, head: {dropout: 0.2}}
"""


class Reports(Progress):
    """Collects the facts on features, and counts the images whose features are computed."""

    def __init__(self) -> None:
        self.features_facts: list[str] = []
        self.computed = 0

    def started(self, facts: Sequence[tuple[str, str]]) -> None:
        self.features_facts = [text for name, text in facts if name == "features"]

    def features(self, done: int, images: int) -> None:
        self.computed += images if done == images else 0


def run(folder: Path, source: Path, train: str, *overrides: str) -> Reports:
    """Train :data:`BASE` with this ``train`` section on ``source``, in place of any earlier run."""
    recipe = parse_recipe(BASE.replace("SOURCE", str(source)) + train, "r.yaml", overrides)
    reports = Reports()
    with RunDir.open(folder, overwrite=True) as run_dir:
        fit(recipe, run_dir, device="cpu", progress=reports)
    return reports


def metrics(folder: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(folder: Path) -> dict[str, str]:
    """The SHA-256 of the metrics, the position and all tensors of a run, by path."""
    files = [folder / "metrics.jsonl", folder / "checkpoints" / "last" / "state.json"]
    for checkpoint in ("best", "last"):
        files.extend(folder.glob(f"checkpoints/{checkpoint}/*.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
