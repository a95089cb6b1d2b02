"""Where features are kept follows from counts alone."""

import pytest

from finetune.features import placement as rule
from finetune.features.placement import Placement, choose_placement, format_bytes
from finetune.recipe.load import parse_recipe

GIGA = 10**9


def verdict(**changes: object) -> Placement:
    given = {
        "rows": 2000, "uses": 30.0, "row_bytes": 2048, "flops": 3.6e9, "pixels": 224 * 224, "threads": 2,
        "on_gpu": False,
    } | changes  # fmt: skip
    return choose_placement(given.pop("wanted", "auto"), given.pop("limit", 4 * GIGA), **given)  # type: ignore[arg-type]


def test_pooled_features_pay() -> None:
    assert verdict().where == "disk"
    assert verdict(wanted="memory").where == "memory"
    assert "2.0 KB an image" in verdict().why


def test_off_is_off_and_a_limit_is_one() -> None:
    assert verdict(wanted="off") == Placement(None, "cache.where: off")
    assert verdict(limit=10**6, wanted="disk").where is None
    assert "over cache.limit, 1.0 MB" in verdict(limit=10**6).why


def test_what_is_read_once_is_not_kept_unless_asked_for() -> None:
    assert verdict(uses=1.0).where is None
    assert verdict(uses=1.0, wanted="disk").where == "disk"


def test_a_cheap_layer_with_large_maps_on_a_gpu_is_computed_anew() -> None:
    wide = {"row_bytes": 2_000_000, "flops": 2e8, "on_gpu": True, "pixels": 112 * 112, "rows": 100}
    assert verdict(**wide).where is None
    assert verdict(**{**wide, "on_gpu": False}).where == "disk"


def test_without_room_on_disk_memory_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10**6

    monkeypatch.setattr(rule.shutil, "disk_usage", lambda _: Usage)
    assert verdict().where == "memory"
    monkeypatch.setattr(rule, "memory", lambda: 10**7)
    assert verdict().where is None
    assert "neither" in verdict().why


def test_amounts() -> None:
    assert [format_bytes(n) for n in (12, 2048, 4_000_000_000)] == ["12 B", "2.0 KB", "4.0 GB"]


@pytest.mark.parametrize(("text", "count"), [("4GB", 4 * GIGA), ("1.5 MB", 1_500_000), ("20KB", 20_000)])
def test_limits_are_read(text: str, count: int) -> None:
    recipe = parse_recipe(
        f"data: {{source: digits}}\nmodel: {{backbone: resnet18}}\ncache: {{limit: {text}}}", "r.yaml"
    )
    assert recipe.cache.limit_bytes == count
