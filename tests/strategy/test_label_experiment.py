"""`scripts/label-experiment` on little data, and at full size where the images are."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# A folder with the sets of real images, `hotdog` and `trashnet`.
REAL = os.environ.get("FINETUNE_TEST_IMAGES", "")


def shares(script: ModuleType) -> dict[str, float]:
    """Per set of images, the mean share of swapped labels among the first 2n of the list, in per cent."""
    lines = script.TABLE.read_text().removeprefix(script.HEAD).splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {each[1]: float(each[8].split()[0]) for each in cells}


def test_a_line_for_each_set_of_images(
    load_script: Callable[[str], ModuleType], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("label-experiment")
    monkeypatch.setattr(script, "TABLE", tmp_path / "labels.md")
    for _ in range(2):
        script.write(str(shapes / "train"), 24, 0.1, 2, ["data.image_size=64", "data.workers=0"])
    assert list(shares(script)) == ["train"]
    assert shares(script)["train"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hotdog", "trashnet"])
def test_of_swapped_labels_four_in_five_are_among_the_first(
    name: str,
    load_script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not REAL or not Path(REAL, name).is_dir():
        pytest.skip(f"FINETUNE_TEST_IMAGES names no folder with {name}")
    script = load_script("label-experiment")
    monkeypatch.setattr(script, "TABLE", tmp_path / "labels.md")
    script.write(str(Path(REAL, name)), 500, 0.05, 5)
    assert shares(script)[name] >= 80
