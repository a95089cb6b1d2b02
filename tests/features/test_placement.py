"""Where features are cached follows from counts alone."""

import shutil
from dataclasses import replace
from typing import Literal

import pytest

from finetune.features import placement as rule
from finetune.features.placement import (
    Budget,
    Placement,
    Workload,
    choose_placement,
    flops_per_second,
    format_bytes,
)
from finetune.recipe.load import parse_recipe

GIGA = 10**9


WORK = Workload(rows=2000, uses=30.0, row_bytes=2048, flops=3_600_000_000, pixels=224 * 224)


def placed(
    work: Workload = WORK,
    where: Literal["auto", "memory", "disk", "off"] = "auto",
    *,
    limit: int = 4 * GIGA,
    on_gpu: bool = False,
) -> Placement:
    return choose_placement(work, Budget(where, limit), flops_per_second(2, on_gpu=on_gpu))


def test_pooled_features_pay() -> None:
    assert placed().where == "disk"
    assert placed(where="memory").where == "memory"
    assert "2.0 KB per image" in placed().why


def test_off_and_the_limit_are_honoured() -> None:
    assert placed(where="off") == Placement(None, "cache.where: off")
    assert placed(where="disk", limit=10**6).where is None
    assert "over cache.limit, 1.0 MB" in placed(limit=10**6).why


def test_rows_read_once_are_not_cached_unless_requested() -> None:
    assert placed(replace(WORK, uses=1.0)).where is None
    assert placed(replace(WORK, uses=1.0), "disk").where == "disk"


def test_a_cheap_layer_with_large_maps_on_a_gpu_is_not_cached() -> None:
    wide = Workload(rows=100, uses=30.0, row_bytes=2_000_000, flops=200_000_000, pixels=112 * 112)
    assert placed(wide, on_gpu=True).where is None
    assert placed(wide).where == "disk"


def test_memory_is_used_if_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10**6

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    assert placed().where == "memory"
    monkeypatch.setattr(rule, "memory", lambda: 10**7)
    assert placed().where is None
    assert "neither" in placed().why


def test_bytes_are_formatted() -> None:
    assert [format_bytes(n) for n in (12, 2048, 4_000_000_000)] == ["12 B", "2.0 KB", "4.0 GB"]


@pytest.mark.parametrize(("text", "count"), [("4GB", 4 * GIGA), ("1.5 MB", 1_500_000), ("20KB", 20_000)])
def test_limits_are_read(text: str, count: int) -> None:
    recipe = parse_recipe(
        f"data: {{source: digits}}\nmodel: {{backbone: resnet18}}\ncache: {{limit: {text}}}", "r.yaml"
    )
    assert recipe.cache.limit_bytes == count
