"""`scripts/reuse-experiment`, small: two heads, a line each, kept from one run of it to the next."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from finetune.data.sources.known import drawn_source

SCRIPT = Path(__file__).parents[2] / "scripts" / "reuse-experiment"


def test_both_heads_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("reuse_experiment", str(SCRIPT))
    spec = importlib.util.spec_from_loader("reuse_experiment", loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reuse_experiment", script)
    loader.exec_module(script)
    monkeypatch.setattr(script, "TABLE", tmp_path / "reuse.md")
    pair = f"{drawn_source().classes[0]}=zebra"
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
