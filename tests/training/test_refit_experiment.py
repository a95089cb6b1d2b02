"""`scripts/refit-experiment` on little data: one line per recipe, with what the refit changes."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import tiny


def test_a_line_for_each_recipe(
    load_script: Callable[[str], ModuleType], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("refit-experiment")
    monkeypatch.setattr(script, "TABLE", tmp_path / "refit.md")
    monkeypatch.setitem(script.TUNED, "epochs", 2)
    tiny.stand_in(monkeypatch)
    monkeypatch.setattr(script, "MODEL", {"backbone": tiny.STANDS_FOR, "weights": "none"})
    for _ in range(2):
        script.write(str(shapes / "train"), 1, 12, 32)
    lines = script.TABLE.read_text().removeprefix(script.HEAD).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [each[:3] for each in cells] == [["train", "all tuned", "32"], ["train", "solved head", "32"]]
    for *_, train, val, test, seeds, before, after, difference in cells:
        assert int(train) + int(val) == 12
        assert (int(test) > 0, seeds) == (True, "1")
        gained = float(after.split()[0]) - float(before.split()[0])
        assert float(difference.split()[0]) == pytest.approx(gained, abs=0.11)
