"""Ranking source networks: planted features, the agreement against SciPy, and the command."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import kendalltau

from finetune.errors import DataError, UserError
from finetune.evaluation.resampling import wilson
from finetune.features.extract import Extractor
from finetune.recipe import catalog
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.probing import frozen_features
from finetune.strategy.probing import rank as strategy
from finetune.strategy.probing.rank import Ranked, agreement_with_probe, quick_scores, rank
from finetune.training.setup.prepare import Setup

SMALL = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18")
SET = ("--set", "data.image_size=32", "--set", "data.workers=0", "--set", "train.threads=1")


def recipe(source: Path, backbone: str, weights: str = "none", cache: str = "disk") -> Recipe:
    text = (
        f"data: {{source: {source}, image_size: 32, workers: 0}}\n"
        f"model: {{backbone: {backbone}, weights: {weights}}}\n"
        f"train: {{threads: 1}}\ncache: {{where: {cache}}}\n"
    )
    return parse_recipe(text, "r.yaml")


def row(name: str, cv_top1: float, log_me: float, h_score: float = 1.0) -> Ranked:
    return Ranked(
        name, "none", cv_top1, 0.0, 1.0, 100, "svm", "C 0.1", log_me, h_score,
        8, 1000, 0.1, 32, 100, 1.0, 0.1, 1.0,
    )  # fmt: skip


def planted(signal_strength: float, n: int = 120, d: int = 6) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Features of unit noise in which the class shifts every dimension by ``signal_strength``."""
    rng = np.random.default_rng(3)
    targets = np.arange(n) % 2
    noise = rng.standard_normal((n, d))
    return (noise + signal_strength * targets[:, None]).astype(np.float32), targets.astype(np.int64)


def test_the_network_with_the_better_features_wins(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = dict(zip(SMALL, (0.1, 2.0, 0.6), strict=True))

    def instead(setup: Setup, split: str, progress: Any) -> Any:
        assert split == "train"
        return frozen_features.FeatureRows(*planted(strengths[setup.recipe.model.backbone]), None)

    monkeypatch.setattr(strategy, "features_of", instead)
    found = rank([recipe(shapes, name) for name in SMALL], device="cpu")
    assert [each.backbone for each in found.ranked] == ["mobilenet_v3_small", "resnet18", SMALL[0]]
    assert [each.log_me for each in found.ranked] == sorted(each.log_me for each in found.ranked)[::-1]
    for score in ("log_me", "h_score"):
        assert found.agreement[score].tau == pytest.approx(1.0)
    best = found.ranked[0]
    assert best.cv_top1 > 0.95
    assert (best.cv_low, best.cv_high) == wilson(round(best.cv_top1 * 120), 120)
    assert found.ranked[-1].cv_low < 0.65


def test_the_agreement_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    rows = [row(str(n), float(rng.random()), float(rng.random()), float(rng.random())) for n in range(7)]
    rows.append(row("7", rows[0].cv_top1, rows[1].log_me))  # ties on both sides
    for name in ("log_me", "h_score"):
        expected = kendalltau([getattr(each, name) for each in rows], [each.cv_top1 for each in rows])
        found = agreement_with_probe(name, rows)
        assert found.n == 8
        assert found.tau == pytest.approx(expected.statistic)
        assert found.p_value == pytest.approx(expected.pvalue)


def test_agreement_that_cannot_be_computed() -> None:
    two = agreement_with_probe("log_me", [row("a", 0.5, 1.0), row("b", 0.6, 2.0)])
    assert (two.tau, two.n) == (None, 2)
    assert "too few" in str(two.why)
    equal = agreement_with_probe("log_me", [row(name, 0.5, n) for n, name in enumerate("abc")])
    assert equal.tau is None
    assert "equal" in str(equal.why)


def test_the_quick_scores_distinguish_labels_from_chance_with_more_features_than_images() -> None:
    features, targets = planted(1.0, n=20, d=40)
    chance = np.random.default_rng(0).permutation(targets)
    for true, shuffled in zip(quick_scores(features, targets), quick_scores(features, chance), strict=True):
        assert true > shuffled + 0.1


def test_only_train_is_read_and_the_rest_comes_from_the_cache(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = []
    genuine = frozen_features.features_of

    def seen(setup: Setup, split: str, progress: Any) -> Any:
        splits.append(split)
        return genuine(setup, split, progress)

    monkeypatch.setattr(strategy, "features_of", seen)
    recipes = [recipe(shapes, name) for name in SMALL]
    first = rank(recipes, device="cpu")
    assert splits == ["train"] * 3
    assert {(each.n, each.computed) for each in first.ranked} == {(32, 32)}
    again = rank(recipes, device="cpu")
    assert {each.computed for each in again.ranked} == {0}
    measured = ("computed", "feature_seconds", "score_seconds", "probe_seconds")
    plain = [
        [{k: v for k, v in each.items() if k not in measured} for each in found.to_dict()["backbones"]]
        for found in (first, again)
    ]
    assert plain[0] == plain[1]


def test_the_cost_equals_the_catalogs(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        strategy, "features_of", lambda *given: frozen_features.FeatureRows(*planted(1.0), None)
    )
    own = parse_recipe(f"data: {{source: {shapes}}}\nmodel: {{backbone: resnet18, weights: none}}", "r.yaml")
    (found,) = rank([own], device="cpu").ranked
    known = catalog.backbone("resnet18")
    weights = known.default_weights
    assert found.gflops == pytest.approx(weights.gflops, abs=0.002)  # the source's head is 0.0005
    assert found.parameters == known.parameters - 513 * 1000
    assert found.image_size == weights.image_size


def test_an_unavailable_network_is_left_out(shapes: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pth"
    recipes = [recipe(shapes, "resnet18", str(missing)), recipe(shapes, SMALL[0])]
    recipes.append(recipe(shapes, "squeezenet1_1"))
    found = rank(recipes, device="cpu")
    assert [each.backbone for each in found.ranked] == [SMALL[0]]
    reasons = {each.backbone: each.reason for each in found.left_out}
    assert "missing.pth" in reasons["resnet18"]
    assert "vector" in reasons["squeezenet1_1"]
    with pytest.raises(UserError, match=r"none of the networks.*\n.*missing"):
        rank(recipes[:1], device="cpu")


def test_unusable_data_is_an_error(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "disc").mkdir()
    with pytest.raises(DataError):
        rank([recipe(tmp_path, SMALL[0])], device="cpu")
    for name, count in (("disc", 1), ("square", 4)):
        for split in ("train", "val"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for image in sorted((shapes / "train" / name).iterdir())[:count]:
                (folder / image.name).write_bytes(image.read_bytes() + split.encode())
    with pytest.raises(DataError, match="two or more"):
        rank([recipe(tmp_path / "photos", SMALL[0])], device="cpu")


def test_the_command(shapes: Path, cli: Any) -> None:
    names = f"{SMALL[0]}, {SMALL[1]}=none, resnet18=gone.pth"
    ended = cli("rank", shapes, "--backbones", names, "--weights", "none", "--json", *SET, "--device", "cpu")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert {each["backbone"] for each in found["backbones"]} == set(SMALL[:2])
    accuracies = [each["cv_top1"] for each in found["backbones"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(each["cv_low"] <= each["cv_top1"] <= each["cv_high"] for each in found["backbones"])
    assert [each["backbone"] for each in found["left_out"]] == ["resnet18"]
    assert found["kendall_tau_with_probe"]["log_me"]["tau"] is None
    shown = cli("rank", shapes, "--backbones", names, "--weights", "none", *SET, "--device", "cpu")
    assert shown.code == 0, shown.err
    assert "32 of 32" in shown.out  # from the cache
    assert "resnet18 (gone.pth) is left out" in shown.out
    assert "too few networks" in shown.out
    assert "32 training images" in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ("--backbones", "resnt18"),
        ("--backbones", "resnet18,"),
        ("--backbones", "resnet18="),
        ("--backbones", "resnet18", "--set", "model.backbone=resnet34"),
        ("--backbones", "resnet18", "--set", "model.weights=none"),
        ("--backbones", "resnet18", "--set", "data.sauce=x"),
        ("--backbones", "resnet18", "--weights", "no/such.pth"),
        ("--backbones", "resnet18=IMAGENET1K_V9"),
    ],
    ids=" ".join,
)
def test_wrong_input_is_refused(words: tuple[str, ...], shapes: Path, cli: Any) -> None:
    ended = cli("rank", shapes, *words)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.strip()


def test_features_computed_before_a_stop_are_cached(
    shapes: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a signal in the second of two batches, the first is cached, and a retry computes the rest."""
    genuine = Extractor.__call__
    calls = 0

    def interrupted(self: Extractor, images: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SystemExit(128 + signal.SIGINT)  # as the command's signal handler does
        return genuine(self, images)

    words = ("rank", shapes, "--backbones", SMALL[0], "--weights", "none", *SET, "--device", "cpu", "--json")
    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "__call__", interrupted)
        ended = cli(*words)
    assert ended.code == 130
    assert ended.out == ""
    assert "features that are in the cache" in ended.err
    again = cli(*words)
    assert again.code == 0, again.err
    assert json.loads(again.out)["backbones"][0]["computed"] == 16
