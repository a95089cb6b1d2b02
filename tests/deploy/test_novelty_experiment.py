"""`scripts/novelty-experiment`: its scores tell drawn strangers, and its corruptions change an image."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from finetune.decision.novelty import nearest_scores, unit_rows


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("novelty-experiment")


class Reference(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.features)


def test_scores_tell_strangers(script: ModuleType) -> None:
    draw = np.random.default_rng(0)
    targets = np.repeat([0, 1], 60)
    centres = draw.normal(size=(3, 8)) * 4

    def drawn(which: np.ndarray) -> np.ndarray:
        return (centres[which] + draw.normal(size=(len(which), 8))).astype(np.float32)

    features = drawn(targets)
    known, strange = drawn(targets), drawn(np.full(60, 2))
    # A network that is sure of known classes only.
    logits_of = lambda rows: rows @ (centres[:2].T / 4).astype(np.float32)  # noqa: E731
    scores = script.scores(Reference(features=features, targets=targets))
    found = {
        name: script.auroc(*(score(logits_of(rows), rows) for rows in (known, strange)))
        for name, score in scores.items()
    }
    assert {name for name, value in found.items() if "neighbours" in name and value < 0.99} == set()
    assert found["Mahalanobis (Lee et al. 2018)"] > 0.99
    # The kept score is among them: both order images alike.
    name = "5 nearest neighbours (Sun et al. 2022)"
    own = nearest_scores(known, unit_rows(features), 5)
    np.testing.assert_allclose(scores[name](logits_of(known), known), np.sqrt(2 * own), atol=1e-3)


@pytest.mark.parametrize("how", ["noise", "blur", "inverted", "black"])
def test_corruptions_change_an_image(script: ModuleType, how: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    changed = script.corrupt(Image.fromarray(pixels), how, np.random.default_rng(1))
    assert changed.size == (30, 24)
    assert np.abs(np.asarray(changed).astype(int) - pixels).mean() > 20
