"""What the figure of the layers shows: crops, depths, families, before and after, and wrong input."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.models import convnext, efficientnet, vgg

from finetune.api.layers import LayerRequest
from finetune.cli import explain
from finetune.data.dataset import Source
from finetune.data.sources.read import read_source
from finetune.errors import UserError
from finetune.explain.layer_maps import map_layouts, mapped_network
from finetune.explain.layers import views as layers
from finetune.explain.layers.subject import State, Subject, subject_of_run
from finetune.explain.layers.views import choose_depths, view_layers
from finetune.image.preprocessing import Preprocessing
from finetune.model.layers.find import find_layers
from small_runs import run as train

SIDE = 32
CLI = Callable[..., Any]


def vgg_small() -> nn.Module:
    with torch.device("meta"):  # its classifier alone has 120 million parameters
        network = models.VGG(nn.Sequential())
    network.features = vgg.make_layers([4, "M", 8, "M", 8], batch_norm=True)
    network.classifier = nn.Sequential(nn.Linear(8 * 49, 16), nn.ReLU(), nn.Linear(16, 5))
    return network


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "vgg": vgg_small,
    "densenet": lambda: models.DenseNet(4, (2, 2), 8, bn_size=2, num_classes=5),
    "efficientnet": lambda: models.EfficientNet(
        [efficientnet.MBConvConfig(1, 3, 1, 8, 8, 1), efficientnet.MBConvConfig(4, 3, 2, 8, 16, 2)],
        dropout=0.2, num_classes=5, last_channel=32,
    ),
    "convnext": lambda: models.ConvNeXt(
        [convnext.CNBlockConfig(8, 16, 2), convnext.CNBlockConfig(16, None, 1)], num_classes=5
    ),
    "vit": lambda: models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5),
    "swin": lambda: models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], 2.0, num_classes=5),
    "maxvit": lambda: models.MaxVit((32, 32), 8, 2, [8, 16], [1, 1], 4, 0.1, num_classes=5),
}  # fmt: skip


def subject(module: nn.Module, source: Source, *others: nn.Module, channels: int = 3) -> Subject:
    """A network that sees images of 32 px; of several, before and after."""
    preprocessing = Preprocessing(SIDE, SIDE, "shorter", "bilinear", (0.5,) * channels, (0.25,) * channels)
    states = [State(f"state {i}", "random", each.eval()) for i, each in enumerate((module, *others))]
    return Subject("net", "images", tuple(states), find_layers(module), preprocessing, source, "error", {})


@pytest.fixture
def source(shapes: Path) -> Source:
    return read_source(str(shapes))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_shown(family: str, source: Source) -> None:
    torch.manual_seed(0)
    views = view_layers(subject(FAMILIES[family](), source))
    assert 3 <= len(views.depths) <= 5
    assert views.searched == 32
    assert views.filters is not None
    for depth in views.depths:
        assert len(depth.units) == min(6, depth.layout.channels)
        for unit in depth.units:
            assert [len(each) for each in unit.crops] == [4]
            assert unit.maps[0].shape == (depth.layout.height, depth.layout.width)
    last = views.depths[-1].field
    assert last.whole == (family in ("vit", "maxvit"))
    assert last.gated == (family == "efficientnet")
    assert views.depths[0].field.size < last.size


def test_a_crop_is_all_that_a_unit_sees(source: Source) -> None:
    """Covering everything outside it leaves the value the same, to the bit; covering the crop does not."""
    torch.manual_seed(0)
    network = FAMILIES["resnet"]()
    whole = subject(network, source)
    layouts = map_layouts(network, whole.table, SIDE)
    chosen = {number: layouts[number] for number in (1, 2)}
    mapped = mapped_network(network, whole.table, chosen)
    split, index = whole.sample(32), 0
    views = view_layers(whole, at="1,2")
    noise = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    checked = 0
    for index, depth in enumerate(views.depths):
        assert depth.field.size < SIDE
        for unit in depth.units:
            for crop in unit.crops[0]:
                at = [split.name(i) for i in range(32)].index(crop.name)
                image = torch.from_numpy(whole.preprocessing(split.image(at)))[None]
                with torch.no_grad():
                    values = mapped.maps(image)[index][0, unit.channel]
                    row, column = divmod(int(values.argmax()), values.shape[1])
                    top, bottom, left, right = depth.field.box(row, column)
                    covered, inside = noise.clone(), image.clone()
                    covered[..., top:bottom, left:right] = image[..., top:bottom, left:right]
                    inside[..., top:bottom, left:right] = noise[..., top:bottom, left:right]
                    value = mapped.maps(covered)[index][0, unit.channel, row, column]
                    other = mapped.maps(inside)[index][0, unit.channel, row, column]
                assert torch.equal(value, values.max())
                assert not torch.equal(other, values.max())
                seen = whole.in_colours(whole.seen(split, at))[top:bottom, left:right]
                assert np.array_equal(seen, crop.pixels)
                # The unit's own place is inside.
                assert 0 <= crop.cell[0] < crop.cell[1] <= bottom - top
                assert 0 <= crop.cell[2] < crop.cell[3] <= right - left
                checked += 1
    assert checked == 2 * 6 * 4


def test_one_channel_and_many(source: Source) -> None:
    for channels in (1, 6):
        network = FAMILIES["resnet"]()
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3)
        views = view_layers(subject(network, source, channels=channels), at="1")
        assert views.bands == channels
        assert views.example[1].shape == (SIDE, SIDE, 3)
        assert (views.example[1][..., 0] == views.example[1][..., 1]).all() == (channels == 1)
        assert views.filters is not None
        assert views.filters[0].shape == (64, 7, 7, 3)


def test_depths_are_evenly_spaced_or_as_asked(source: Source) -> None:
    whole = subject(FAMILIES["vgg"](), source)
    assert choose_depths(whole, range(1, 19), None) == [1, 5, 10, 14, 18]
    assert choose_depths(whole, [2, 3], None) == [2, 3]
    assert choose_depths(whole, [1, 2, 3], "features.4, 1,1") == [1, 2]
    for at, words in {"9": "layers 1 to", "0": "layers 1 to", "a": "layers 1 to", "4": "no map of"}.items():
        with pytest.raises(UserError, match=words):
            choose_depths(whole, [1, 2, 3], at)
    with pytest.raises(UserError, match="no layer computes"):
        choose_depths(whole, [], None)


def test_the_sample_has_all_classes_and_is_always_the_same(source: Source) -> None:
    whole = subject(FAMILIES["vit"](), source)
    one, other = whole.sample(10), whole.sample(10)
    assert one.class_counts(2).tolist() == [5, 5]
    assert [one.name(i) for i in range(10)] == [other.name(i) for i in range(10)]
    assert len(whole.sample(1000)) == 32


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first 8 layers are frozen, and whose later ones change much."""
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    train(folder, shapes, "train: {phases: [{freeze: 8, epochs: 2, lr: 0.5}]}")
    return folder


def test_frozen_layers_stay_and_others_change(run: Path, cli: CLI, chdir_tmp: Path) -> None:
    ended = cli("explain", run, "--layers", "--at", "1,5,12,13", "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    same = {
        row["number"]: all(each["before"] == each["after"] for each in row["channels"])
        for row in found["layers"]
    }
    assert same == {1: True, 5: True, 12: False, 13: False}
    assert [row["moved"] == 0 for row in found["layers"]] == [True, True, False, False]
    assert {len(row["channels"]) for row in found["layers"]} == {3}
    assert found["figure"] == str(run / "explain" / "layers.png")
    with Image.open(run / "explain" / "layers.png") as drawn:
        assert drawn.width >= 1600


def test_a_backbone_is_shown_and_written_where_asked(
    shapes: Path, cli: CLI, chdir_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "SEARCHED", 4)
    image = shapes / "test" / "disc" / "disc_01.png"
    words = ("explain", "shufflenet_v2_x0_5", image, "--layers", "--data", shapes, "--weights", "none")
    ended = cli(*words, "--at", "conv1.0,3", "--out", "here.svg")
    assert ended.code == 0, ended.err
    assert "stage2.1" in ended.out
    text = (chdir_tmp / "here.svg").read_text()
    assert text.startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("RUN", "--at", "99"), "has layers 1 to 18 before its head"),
        (("RUN", "--data", "OTHER"), "none of the images that .* was trained on"),
        (("RUN", "--weights", "none"), "--weights: .* is a run"),
        (("RUN", "BROKEN"), "broken.png"),
        (("RUN", "nothing.png"), "nothing.png: no such image"),
        (("RUN", "BROKEN", "BROKEN"), "one IMAGE"),
        (("RUN", "--out", "figure.xyz"), "unknown figure format"),
        (("resnet18",), "give the images to show it with --data"),
        (("resnet81", "--data", "DATA"), "resnet18"),
        (("shufflenet_v2_x0_5", "--data", "nowhere", "--weights", "none"), "nowhere"),
        (("shufflenet_v2_x0_5", "--data", "DATA", "--weights", "nothing.pt"), "nothing.pt"),
    ],
)
def test_wrong_input_is_refused_with_a_message(
    words: tuple[str, ...], message: str, run: Path, shapes: Path, cli: CLI, chdir_tmp: Path
) -> None:
    Path("broken.png").write_bytes(b"no image")
    for name in ("disc", "square"):
        (Path("other") / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(Path("other") / name / "a.png")
    names = {"RUN": run, "OTHER": Path("other"), "DATA": shapes, "BROKEN": Path("broken.png")}
    ended = cli("explain", *(names.get(word, word) for word in words), "--layers")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert re.search(message, ended.err, re.DOTALL)


def test_images_that_were_moved_are_found(run: Path, shapes: Path, chdir_tmp: Path) -> None:
    shutil.copytree(shapes, "moved")
    there = subject_of_run(run, data="moved").sample(5)
    assert [there.name(i).startswith("moved/") for i in range(5)] == [True] * 5


def test_figures_have_their_place(run: Path, chdir_tmp: Path) -> None:
    backbone = LayerRequest("timm:resnet10t", data="images")
    assert explain._figure_of_layers(backbone, None) == Path("runs/explain/timm-resnet10t-layers.png")
    assert explain._figure_of_layers(backbone, Path("a")) == Path("a/timm-resnet10t-layers.png")
    assert explain._figure_of_layers(backbone, Path("a.pdf")) == Path("a.pdf")
    assert explain._figure_of_layers(LayerRequest(str(run)), None) == run / "explain" / "layers.png"


def test_the_options_go_with_layers(run: Path, cli: CLI) -> None:
    for option in ("--at", "--data", "--weights"):
        ended = cli("explain", run, option, "1")
        assert ended.code == 2
        assert f"{option} goes with --layers" in ended.err
