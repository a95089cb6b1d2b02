"""Checkpoints: whole or not at all."""

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


def test_the_new_one_takes_over_and_the_one_before_stays(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        save(tmp_path, value)
    assert value_of(open_checkpoint(tmp_path, "last")) == 3.0
    assert value_of(tmp_path / "last.previous") == 2.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "last.previous"]


def test_only_one_is_kept_where_one_is_asked_for(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save(tmp_path, value, keep_previous=False)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_none_is_none(tmp_path: Path) -> None:
    assert open_checkpoint(tmp_path, "last") is None


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_harmed_one_gives_way_to_the_one_before_with_a_warning(
    tmp_path: Path, file: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1.0)
    path = save(tmp_path, 2.0) / file
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif harm == "truncate":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0
    assert "using the checkpoint before it" in caplog.text
    shutil.rmtree(tmp_path / "last.previous")
    with pytest.raises(CheckpointError, match="no whole one before it"):
        open_checkpoint(tmp_path, "last")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_no_flipped_bit_goes_unseen(tmp_path: Path, position: float, bit: int, data: st.DataObject) -> None:
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
    # Only a flip in the manifest that leaves its meaning alone (none of its digests) may pass.
    assert file.name == "manifest.json"
    assert json.loads((path / "manifest.json").read_text()) == before
    assert value_of(opened) == 2.0


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0


def test_what_a_killed_save_left_is_swept_away(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    shutil.copytree(tmp_path / "last", tmp_path / ".tmp-last")
    save(tmp_path, 2.0, keep_previous=False)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    (tmp_path / "last").rename(tmp_path / "last.previous")
    assert value_of(open_checkpoint(tmp_path, "last")) == 1.0


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_weights_are_loaded_whole() -> None:
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
        ({"0.bias": torch.tensor([1.0, float("nan")])}, "0.bias holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weights = {**network().state_dict(), **change}
    with pytest.raises(CheckpointError, match=message):
        load_weights(target, {k: v for k, v in weights.items() if v is not None}, Path("m"))
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
