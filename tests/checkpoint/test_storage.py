"""A checkpoint is saved completely or not at all, and a damaged one is never opened."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from finetune.checkpoint.storage import (
    MODEL,
    load_weights,
    open_checkpoint,
    read_tensors,
    restore_previous,
    save_checkpoint,
)
from finetune.errors import CheckpointError, SaveError


def save(folder: Path, value: float, keep_previous: bool = True) -> Path:
    tensors = {MODEL: {"weight": torch.full((3, 2), value), "count": torch.tensor(7)}}
    documents = {"card.json": {}, "state.json": {"value": value}}
    return save_checkpoint(folder, "last", tensors, documents, keep_previous=keep_previous)


def value_of(path: Path | None) -> float:
    assert path is not None
    return float(read_tensors(path / MODEL)["weight"][0, 0])


def test_a_save_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        save(tmp_path, value)
    assert value_of(open_checkpoint(tmp_path, "last")) == 3.0
    assert value_of(tmp_path / "last.previous") == 2.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "last.previous"]


def test_a_save_removes_the_previous_checkpoint_on_request(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save(tmp_path, value, keep_previous=False)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_checkpoint_that_does_not_exist_is_none(tmp_path: Path) -> None:
    assert open_checkpoint(tmp_path, "last") is None


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_the_previous_checkpoint_replaces_a_damaged_one_with_a_warning(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1.0)
    path = save(tmp_path, 2.0) / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0
    assert "using the checkpoint before it" in caplog.text
    shutil.rmtree(tmp_path / "last.previous")
    with pytest.raises(CheckpointError, match="no intact one before it"):
        open_checkpoint(tmp_path, "last")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_every_flipped_bit_is_found(tmp_path: Path, position: float, bit: int, data: st.DataObject) -> None:
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    path = save(folder, 2.0)
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    before = json.loads((path / "manifest.json").read_text())
    file.write_bytes(content)
    try:
        opened = open_checkpoint(folder, "last")
    except CheckpointError:
        return
    # Only a flip in the manifest that changes none of its digests may pass.
    assert file.name == "manifest.json"
    assert json.loads((path / "manifest.json").read_text()) == before
    assert value_of(opened) == 2.0


def test_a_failed_save_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0


def test_the_next_save_removes_the_files_of_a_killed_one(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    shutil.copytree(tmp_path / "last", tmp_path / ".tmp-last")
    save(tmp_path, 2.0, keep_previous=False)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_kill_between_the_two_renames_loses_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    (tmp_path / "last").rename(tmp_path / "last.previous")
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0


def test_the_previous_checkpoint_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    (save(tmp_path, 2.0) / MODEL).unlink()
    opened = open_checkpoint(tmp_path, "last")
    assert opened is not None
    restore_previous(opened)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_weights_are_loaded() -> None:
    torch.manual_seed(0)
    source, target = network(), network()
    load_weights(target, source.state_dict(), Path("m"))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "0.weight is missing"),
        ({"2.weight": torch.zeros(1)}, "2.weight is unknown"),
        ({"0.weight": torch.zeros(3, 2)}, r"0\.weight is torch\.float32 \(3, 2\), not"),
        ({"0.bias": torch.zeros(2, dtype=torch.float64)}, "0.bias is torch.float64"),
        ({"0.bias": torch.tensor([1.0, float("nan")])}, "0.bias has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weights = {**network().state_dict(), **change}
    with pytest.raises(CheckpointError, match=message):
        load_weights(target, {k: v for k, v in weights.items() if v is not None}, Path("m"))
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
