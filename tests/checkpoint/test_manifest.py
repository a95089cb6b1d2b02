"""Damage is found and named; files that a training replaces while they are read are read again."""

import json
import os
from pathlib import Path

import pytest

from finetune.checkpoint import manifest
from finetune.checkpoint.manifest import MANIFEST, digest, find_damage, read_unchanged
from finetune.errors import CheckpointError


def checkpoint(folder: Path, content: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "card.json").write_text(content)
    text = json.dumps({"sha256": {"card.json": digest(folder / "card.json")}})
    (folder / "new").write_text(text)
    os.replace(folder / "new", folder / MANIFEST)  # noqa: PTH105
    return folder


def test_an_intact_checkpoint_has_no_damage(tmp_path: Path) -> None:
    assert find_damage(checkpoint(tmp_path / "last"), ("card.json",)) is None


def test_each_kind_of_damage_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "last")
    assert "is not the manifest" in str(find_damage(folder, ("model.safetensors",)))
    (folder / "state.json").write_text("{}")
    assert "is not part of the checkpoint" in str(find_damage(folder, ()))
    (folder / "state.json").unlink()
    (folder / "card.json").write_text("b")
    assert "its SHA-256 differs" in str(find_damage(folder, ()))
    (folder / "card.json").unlink()
    assert "card.json is missing" in str(find_damage(folder, ()))
    (folder / MANIFEST).write_text(json.dumps({"sha256": {"../card.json": "0"}}))
    assert "outside of its folder" in str(find_damage(folder, ()))
    (folder / MANIFEST).write_text("[" * 100_000)
    assert "cannot be read" in str(find_damage(folder, ()))


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "last")
    contents = iter(["b", "c"])

    def read() -> str:
        found = (folder / "card.json").read_text()
        if (content := next(contents, None)) is not None:
            checkpoint(folder, content)
            raise CheckpointError("half of it")
        return found

    assert read_unchanged([folder], read) == "c"


def test_an_error_without_a_replacement_is_raised_at_once(tmp_path: Path) -> None:
    def fail() -> None:
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        read_unchanged([checkpoint(tmp_path / "last")], fail)


def test_a_checkpoint_that_is_always_being_replaced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "PAUSE_SECONDS", 0)
    folder = tmp_path / "last"
    with pytest.raises(CheckpointError, match="faster than it can be read"):
        read_unchanged([folder], lambda: checkpoint(folder))
