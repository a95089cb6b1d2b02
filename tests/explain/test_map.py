"""The map of a split: the images in the plane by their features, as a page and as figures."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from browser import opened, screenshot
from finetune.explain.features import feature_map
from finetune.explain.features.feature_map import FeatureMap, lay_out, map_of_run
from finetune.explain.features.map_classes import MOST_CLASSES, point_styles
from finetune.explain.features.map_figure import draw_map
from finetune.explain.features.map_page import render_map
from finetune.training.trained import load_trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def found(run: Path) -> FeatureMap:
    return map_of_run(load_trained(run), "test")


def with_names(found: FeatureMap, *names: str) -> FeatureMap:
    return dataclasses.replace(found, classes=names)


def clusters(number: int = 30) -> tuple[np.ndarray, np.ndarray]:
    targets = np.repeat([0, 1], number)
    draw = np.random.default_rng(0).normal(size=(2 * number, 6))
    return (draw + 8 * np.eye(2, 6)[targets]).astype(np.float32), targets


def test_clusters_of_features_are_clusters_in_the_plane() -> None:
    features, targets = clusters()
    plane = lay_out("after", features, targets, np.arange(60))
    for points in (plane.pca, plane.tsne):
        assert points.min() >= 0
        assert points.max() == 1
        centres = [points[targets == each].mean(0) for each in (0, 1)]
        spread = max(points[targets == each].std(0).max() for each in (0, 1))
        assert np.linalg.norm(centres[0] - centres[1]) > 3 * spread
    assert plane.agreement == 1.0
    assert plane.variance[0] > plane.variance[1] > 0
    # A control: labels that have nothing to do with the features.
    assert lay_out("after", features, np.arange(60) % 2, np.arange(60)).agreement < 0.8


def test_the_same_features_give_the_same_plane() -> None:
    features, targets = clusters()
    first, again = (lay_out("", features, targets, np.arange(60)) for _ in range(2))
    assert np.array_equal(first.tsne, again.tsne)
    assert not np.array_equal(first.tsne, lay_out("", features[::-1], targets, np.arange(60)).tsne)


def test_copies_of_an_image_are_one_point() -> None:
    features, targets = clusters()
    features[7] += 1e-4  # as if computed in another batch
    same = np.arange(60)
    same[7] = 5
    plane = lay_out("", features, targets, same)
    assert plane.tsne[7].tolist() == plane.tsne[5].tolist()
    assert plane.pca[7].tolist() == plane.pca[5].tolist()
    assert plane.tsne[6].tolist() != plane.tsne[5].tolist()


@pytest.mark.parametrize(("number", "width"), [(1, 4), (2, 4), (9, 1), (12, 2)])
def test_few_images_and_few_features(number: int, width: int) -> None:
    features = np.random.default_rng(0).normal(size=(number, width)).astype(np.float32)
    plane = lay_out("", features, np.zeros(number, np.int64), np.arange(number))
    assert plane.tsne.shape == plane.pca.shape == (number, 2)
    assert np.isfinite(plane.tsne).all()
    alike = lay_out("", 0 * features + 1, np.zeros(number, np.int64), np.arange(number))
    assert (alike.tsne == 0.5).all()


def test_a_map_shows_the_split_before_and_after(found: FeatureMap) -> None:
    assert (found.split, found.total, len(found.features)) == ("test", 12, 12)
    assert [plane.title for plane in found.planes] == ["before fine-tuning", "after fine-tuning"]
    assert not np.array_equal(found.planes[0].pca, found.planes[1].pca)


def test_of_a_large_split_a_sample_is_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_map, "MOST_POINTS", 8)
    found = map_of_run(load_trained(run), "train")
    assert (len(found.features), found.total) == (8, 32)
    assert b"8 of 32 images, a sample" in render_map(found, "run")


def test_without_its_source_weights_a_run_is_shown_after_only(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    environment = json.loads((moved / "environment.json").read_text())
    (moved / "environment.json").write_text(json.dumps(environment | {"start_fingerprint": "other"}))
    found = map_of_run(load_trained(moved), "val")
    assert [plane.title for plane in found.planes] == ["after fine-tuning"]
    assert found.missing is not None
    assert b"There is no map before fine-tuning" in render_map(found, "run")


def test_up_to_20_classes_have_looks_of_their_own() -> None:
    targets = np.arange(MOST_CLASSES)
    looks = point_styles(targets, targets < 0, MOST_CLASSES)
    assert len(set(looks.values())) == MOST_CLASSES
    # Of a thousand, those with the most mistakes.
    targets = np.repeat(np.arange(1000), 2)
    wrong = np.isin(targets, range(500, 515))
    looks = point_styles(targets, wrong, 1000)
    assert list(looks) == [*range(5), *range(500, 515)]


def test_the_command_writes_the_same_bytes_again(run: Path, tmp_path: Path, cli: Cli) -> None:
    for name in ("a", "b"):
        ended = cli("explain", run, "--map", "--split", "val", "--out", tmp_path / name, "--device", "cpu")
        assert ended.code == 0, ended.err
        assert "val: 12 images" in ended.out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["map-pca.png", "map.html", "map.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_wrong_input(run: Path, cli: Cli) -> None:
    for words in (
        ("explain", run, "--map", "a.png"),
        ("explain", run, "--nearest", "a.png", "--split", "val"),
        ("explain", run / "none", "--map"),
    ):
        assert cli(*words).code == 2


def test_json_has_every_image(run: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("explain", run, "--map", "--json", "--out", tmp_path, "--device", "cpu")
    told = json.loads(ended.out)
    assert (told["split"], told["n"], len(told["images"])) == ("test", 12, 12)
    assert set(told["same_label"]) == {"before", "after"}
    assert len(told["images"][0]["before"]["tsne"]) == 2


def test_many_classes_with_hostile_names_can_be_drawn(found: FeatureMap, tmp_path: Path) -> None:
    names = with_names(found, "$a_{$ \u202e" + "n" * 300, "<b>")
    figure = draw_map(names, "pca")
    figure.savefig(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.width > image.height


def test_the_page_in_a_browser(found: FeatureMap, browser: "Browser", tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e\"'"
    page = tmp_path / "map.html"
    page.write_bytes(render_map(with_names(found, hostile, "</script><script>alert(2)</script>"), "run <b>"))
    with opened(browser, page) as shown:
        card, planes = shown.page.locator("#card"), shown.page.locator("svg.plane")
        assert planes.count() == 2
        assert card.is_hidden()
        box = planes.nth(1).locator("g.pt").nth(3).bounding_box()
        assert box is not None
        shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert card.locator("img").evaluate("(image) => image.naturalWidth") == 40
        assert card.locator("p").inner_text().splitlines()[0].startswith(("<img src=x", "</script>"))
        shown.page.mouse.move(2, 2)
        assert card.is_hidden()
        # By keyboard: a map is one stop, and the point is marked in both planes.
        planes.nth(0).focus()
        shown.page.keyboard.press("ArrowLeft")
        shown.page.keyboard.press("ArrowRight")
        assert card.is_visible()
        assert shown.page.locator("g.pt.at").count() == 2
        before = planes.nth(0).locator("g.pt").nth(0).get_attribute("transform")
        shown.page.locator("input[value=pca]").check()
        assert planes.nth(0).locator("g.pt").nth(0).get_attribute("transform") != before
        shown.page.locator(".legend button").nth(0).click()
        assert shown.page.locator("svg.plane g.pt.picked").count() == 12
        screenshot(shown, "map", tmp_path)
        assert shown.problems == []
