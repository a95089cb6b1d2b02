"""The Python examples of the documentation run as they stand, in a folder with a few images and a recipe."""

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = ["README.md", "docs/python.md"]
RECIPE = """\
data: {source: photos, image_size: 32, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train: {batch_size: 8, phases: [{epochs: 1}]}
"""


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def folder(shapes: Path, chdir_tmp: Path) -> Iterator[Path]:
    """The files that the examples name: ``photos/``, ``recipe.yaml``, ``a.jpg`` and ``b.jpg``."""
    shutil.copytree(shapes, "photos")
    Path("recipe.yaml").write_text(RECIPE)
    for name, source in {"a": "disc/disc_00", "b": "square/square_00"}.items():
        Image.open(shapes / "test" / f"{source}.png").save(f"{name}.jpg")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield chdir_tmp
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_they_stand(page: str, folder: Path) -> None:
    image = Image.open("a.jpg")
    names: dict[str, Any] = {"pil_image": image, "numpy_array": np.asarray(image)}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page}, example {number}", "exec"), names)


def test_there_are_examples() -> None:
    assert len(blocks("docs/python.md")) >= 10
