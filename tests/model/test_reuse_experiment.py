"""`scripts/reuse-experiment` on little data: one line per head, and finished lines are not repeated."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from finetune.data.sources.named.drawn import draw_source


def test_both_heads_are_compared(
    load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("reuse-experiment")
    monkeypatch.setattr(script, "TABLE", tmp_path / "reuse.md")
    pair = f"{draw_source().classes[0]}=zebra"
    small = ["data.image_size=32", "train.max_steps=1", "data.workers=0"]
    for freeze in ("backbone", "none"):
        script.write("drawn", [pair], 1, freeze, small)
    lines = script.TABLE.read_text().removeprefix(script.HEAD).splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [(cell[3], cell[4], cell[5]) for cell in cells] == [
        ("1 of 3, by alias", "backbone", "as usual"),
        ("1 of 3, by alias", "backbone", "from the source's"),
        ("1 of 3, by alias", "none", "as usual"),
        ("1 of 3, by alias", "none", "from the source's"),
    ]
    assert all(cell[8].endswith("]") and cell[9].endswith("]") for cell in cells)
