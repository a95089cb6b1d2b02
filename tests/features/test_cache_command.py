"""``finetune cache``: lists what is cached, and removes it."""

import json
from typing import Any

import numpy as np
import torch

from finetune.data.cache import contents
from finetune.data.cache.contents import cache_folder
from finetune.data.cache.decoded import DecodedCache
from finetune.features.extract import RowSpec
from finetune.features.store import FeatureStore


def test_cached_sets_are_listed_and_cleared(cli: Any) -> None:
    assert "0.0 MB in 0 sets" in cli("cache", "info").out
    folder = contents.features_folder() / "abc"
    about = {"backbone": "resnet18", "layers": 9, "augment": None}
    one = FeatureStore(RowSpec((250,), torch.float32, channels_last=False), folder, about)
    one.add([bytes(32), bytes(31) + b"1"], torch.zeros(2, 250))
    one.flush()
    (contents.features_folder() / "foreign").mkdir()
    images = contents.decoded_folder() / "def"
    decoded = DecodedCache(images, 10_000, {"shorter": 305})
    decoded.add(bytes(32), np.zeros((5, 5, 3), np.uint8))
    decoded.close()
    found = json.loads(cli("cache", "info", "--json").out)
    files = [*folder.iterdir(), *images.iterdir()]
    assert found["bytes"] == sum(path.stat().st_size for path in files) > 2000
    of_features = [each for each in found["kept"] if each["kind"] == "features"]
    assert [(each["backbone"], each["layers"]) for each in of_features] in (
        [("resnet18", 9), ("?", "?")],
        [("?", "?"), ("resnet18", 9)],
    )
    shown = cli("cache", "info")
    assert shown.code == 0
    assert "resnet18, 9 frozen layers, plain images" in shown.out
    assert "shorter side 305 px" in shown.out
    assert json.loads(cli("cache", "clear", "--json").out)["freed"] == found["bytes"]
    assert not contents.features_folder().exists()
    assert not contents.decoded_folder().exists()
    assert "0.0 MB freed" in cli("cache", "clear").out


def test_clear_removes_the_listings_of_earlier_versions(cli: Any) -> None:
    listings = cache_folder() / "listings"
    listings.mkdir(parents=True)
    (listings / "abc.json").write_text("{}")
    assert cli("cache", "clear").code == 0
    assert not listings.exists()
