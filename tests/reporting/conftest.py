"""A small run whose classes and files have hostile names, and the report of it."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetune
import tiny
from finetune.recipe.load import parse_recipe
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir

CLASSES = (
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'quoted'</script>",
    "abc \u202egnp.txet",
    "n" * 300,
)
COUNTS = {"train": 6, "val": 3, "test": 7}


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)


@contextmanager
def tiny_network() -> Iterator[None]:
    """For fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.stand_in(patch)
        yield


def draw_table(folder: Path, classes: tuple[str, ...], counts: dict[str, int]) -> Path:
    """Draw noise of 20 px in these classes, which differ a little, and a table of them."""
    folder.mkdir(parents=True)
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for split, count in counts.items():
            for label, name in enumerate(classes):
                for index in range(count):
                    draw = np.random.default_rng([label, index, len(split)])
                    pixels = draw.integers(20 * label, 160 + 20 * label, (20, 20, 3), dtype=np.uint8)
                    path = folder / f"{split}-{label}-{index} <b>&\u202e.png"
                    Image.fromarray(pixels).save(path)
                    table.writerow([path.name, name, split])
    return folder / "table.csv"


def train(run: Path, source: Path | str, *overrides: str, section: str = "{batch_size: 8}") -> Path:
    """Train the tiny network on ``source`` for two epochs."""
    text = (
        f"data: {{source: '{source}', image_size: 16, resize: 16, workers: 0}}\n"
        f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\n"
        f"train: {section}\n"
    )
    epochs = () if "phases" in section else ("train.phases=[{epochs: 2, lr: 1e-2}]",)
    with RunDir.open(run) as directory:
        fit(parse_recipe(text, "recipe.yaml", [*epochs, *overrides]), directory, device="cpu")
    return run


def unfinish(run: Path) -> None:
    """Have a run look as if it had been stopped before its end."""
    state = run / "checkpoints" / "last" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"finished": False}))
    manifest = state.with_name("manifest.json")
    listed = json.loads(manifest.read_text())
    listed["sha256"]["state.json"] = hashlib.sha256(state.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(listed))


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only run on hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    with tiny_network():
        return train(folder / "run <i>'\"", draw_table(folder / "images", CLASSES, COUNTS))


@pytest.fixture(scope="session")
def page(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that run."""
    with tiny_network():
        return finetune.report(hostile_run, tmp_path_factory.mktemp("page") / "report.html", device="cpu")


@pytest.fixture
def make_report(tmp_path: Path) -> Callable[..., str]:
    """``make_report(run, split="val")``: the text of a run's report."""

    def make(run: Path, **options: object) -> str:
        path = finetune.report(run, tmp_path / "made.html", device="cpu", **options)  # type: ignore[arg-type]
        return path.read_text(encoding="utf-8")

    return make
