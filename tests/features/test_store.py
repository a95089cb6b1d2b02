"""Blocks of features are stored completely or not at all, and damaged files are never read."""

import hashlib
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.data.cache import contents
from finetune.features import store
from finetune.features.extract import RowSpec
from finetune.features.store import FeatureStore

SPEC = RowSpec((3, 2), torch.float32, channels_last=False)


def identities(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(str(each).encode()).digest() for each in numbers]


def rows(*numbers: int) -> Tensor:
    return torch.stack([torch.arange(6.0).reshape(3, 2) + 100 * each for each in numbers])


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "s" if request.param == "disk" else None


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_ROWS", 4)


def test_rows_come_back_in_any_order(folder: Path | None) -> None:
    stored = FeatureStore(SPEC, folder)
    stored.add(identities(*range(10)), rows(*range(10)))
    stored.flush()
    assert len(stored) == 10
    assert identities(9)[0] in stored
    assert identities(10)[0] not in stored
    wanted = (7, 0, 9, 7)
    assert torch.equal(stored.read(stored.locate(identities(*wanted))), rows(*wanted))
    with pytest.raises(KeyError):
        stored.locate(identities(10))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_bits(dtype: torch.dtype, folder: Path | None) -> None:
    spec = RowSpec((5,), dtype, channels_last=False)
    values = torch.randn(3, 5).to(dtype)
    stored = FeatureStore(spec, folder)
    stored.add(identities(1, 2, 3), values)
    stored.flush()
    assert torch.equal(stored.read(stored.locate(identities(1, 2, 3))), values)


def test_complete_blocks_survive_an_interruption(tmp_path: Path) -> None:
    first = FeatureStore(SPEC, tmp_path)
    first.add(identities(*range(10)), rows(*range(10)))  # two whole blocks; the rest is lost
    second = FeatureStore(SPEC, tmp_path)
    there = [n for n in range(10) if identities(n)[0] in second]
    assert there == list(range(8))
    second.add(identities(8, 9), rows(8, 9))
    second.flush()
    third = FeatureStore(SPEC, tmp_path)
    assert torch.equal(third.read(third.locate(identities(*range(10)))), rows(*range(10)))


@pytest.mark.parametrize("harm", ["flip", "cut", "foreign", "empty"])
def test_damaged_files_are_replaced_and_never_read(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = FeatureStore(SPEC, tmp_path)
    first.add(identities(*range(8)), rows(*range(8)))
    blocks = sorted(tmp_path.glob("*.safetensors"))
    content = bytearray(blocks[0].read_bytes())
    if harm == "flip":
        content[-5] ^= 1
        blocks[0].write_bytes(content)
    elif harm == "cut":
        blocks[0].write_bytes(content[:-8])
    elif harm == "empty":
        blocks[0].write_bytes(b"")
    else:  # whole, under its own digest, but no block
        blocks[0].unlink()
        foreign = b"\x10\0\0\0\0\0\0\0{}              "
        (tmp_path / f"{hashlib.sha256(foreign).hexdigest()}.safetensors").write_bytes(foreign)
    with caplog.at_level(logging.WARNING):
        second = FeatureStore(SPEC, tmp_path)
    assert len(second) == 4
    assert "computed again" in caplog.text
    missing = [n for n in range(8) if identities(n)[0] not in second]
    second.add(identities(*missing), rows(*missing))
    second.flush()
    assert torch.equal(second.read(second.locate(identities(*range(8)))), rows(*range(8)))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_blocks_of_other_rows_are_removed(tmp_path: Path) -> None:
    first = FeatureStore(SPEC, tmp_path)
    first.add(identities(*range(4)), rows(*range(4)))
    assert len(FeatureStore(RowSpec((7,), torch.float32, channels_last=False), tmp_path)) == 0


def test_rows_stay_in_memory_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = FeatureStore(SPEC, tmp_path)

    def fails(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_atomic", fails)
    full.add(identities(*range(4)), rows(*range(4)))
    assert "No space left" in caplog.text
    assert torch.equal(full.read(full.locate(identities(2))), rows(2))
    assert not list(tmp_path.glob("*.safetensors"))


def test_two_stores_can_fill_one_folder(tmp_path: Path) -> None:
    one, two = FeatureStore(SPEC, tmp_path), FeatureStore(SPEC, tmp_path)
    one.add(identities(*range(4)), rows(*range(4)))
    two.add(identities(*range(2, 6)), rows(*range(2, 6)))
    third = FeatureStore(SPEC, tmp_path)
    assert torch.equal(third.read(third.locate(identities(*range(6)))), rows(*range(6)))


def test_the_least_recently_used_store_is_removed_first() -> None:
    import os

    root = contents.features_folder()
    for age, name in enumerate(("old", "mid", "new")):
        one = FeatureStore(SPEC, root / name, {"backbone": name})
        one.add(identities(*range(4)), rows(*range(4)))
        os.utime(root / name, (1000.0 + age, 1000.0 + age))
    found = contents.list_cached()
    assert [each.folder.name for each in found] == ["new", "mid", "old"]
    assert found[0].about == {"backbone": "new"}
    size = found[0].nbytes
    assert contents.make_room(size, 3 * size, root / "next") == 1
    assert [each.folder.name for each in contents.list_cached()] == ["new", "mid"]
    assert contents.make_room(size, 3 * size, root / "next") == 0
    assert contents.make_room(10 * size, size, root / "new") == 1
    assert [each.folder.name for each in contents.list_cached()] == ["new"]
    assert contents.clear_cache() == size
    assert contents.list_cached() == []
