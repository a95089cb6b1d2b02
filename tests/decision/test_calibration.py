"""The temperature: against known truth, and left alone where val is too small to tell."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from finetune.decision.calibration import (
    PRIOR_DEVIATION,
    SMALL_VAL,
    UNKNOWN,
    Calibration,
    calibrate,
    fit_temperature,
)
from finetune.evaluation.calibration_check import check_calibration

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def drawn(n: int, scale: float, seed: int, classes: int = 4) -> Drawn:
    """Logits whose probabilities are right when divided by ``scale``, and targets drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    targets = (rng.random((n, 1)) > chances[:, :-1]).sum(axis=1)
    return (scale * logits).astype(np.float32), targets.astype(np.int64)


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_the_temperature_undoes_a_known_factor(scale: float) -> None:
    found = calibrate(*drawn(5000, scale, seed=1))
    assert found.temperature == pytest.approx(scale, rel=0.05)
    assert (found.split, found.n, found.reason) == ("val", 5000, "")


def test_the_temperature_is_the_minimum_of_its_objective() -> None:
    logits, targets = drawn(300, 1.7, seed=2)
    share = UNKNOWN / (len(targets) + UNKNOWN)

    def objective(log_temperature: NDArray[np.float64]) -> float:
        each = -log_softmax(logits / np.exp(log_temperature), axis=1)
        own = each[np.arange(len(targets)), targets]
        mean = (1 - share) * own.mean() + share * each.mean()
        return float(mean * (len(targets) + UNKNOWN) + (log_temperature[0] / PRIOR_DEVIATION) ** 2 / 2)

    expected = np.exp(minimize(objective, [0.0], method="Nelder-Mead", options={"xatol": 1e-6}).x[0])
    assert fit_temperature(logits, targets)[0] == pytest.approx(expected, rel=1e-3)


def test_a_calibrated_network_is_left_alone() -> None:
    """At 5 % error of the test, most of 40 draws stay; the control: none of them does at twice the logits."""
    left = [calibrate(*drawn(100, 1.0, seed)).temperature == 1 for seed in range(40)]
    assert sum(left) >= 35
    assert not any(calibrate(*drawn(400, 2.0, seed)).temperature == 1 for seed in range(10))


def test_a_small_val_on_which_everything_is_right_is_left_alone() -> None:
    """165 images, all right with a mean probability of 98 %: more of the same would not all be right."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 10, 165)
    logits = rng.normal(0, 1, (165, 10)).astype(np.float32)
    logits[np.arange(165), targets] += 8
    confidence = softmax(logits, axis=1).max(axis=1)
    assert 0.97 < confidence.mean() < 0.995
    found = calibrate(logits, targets)
    assert found.temperature == 1.0
    assert "165 images" in found.reason
    assert "too small" in found.reason


def test_a_large_val_that_shows_no_gain_is_not_called_small() -> None:
    reasons = [calibrate(*drawn(SMALL_VAL + 100, 1.0, seed)).reason for seed in range(5)]
    assert any(reasons)
    assert not any("small" in reason for reason in reasons)


def test_groups_count_once() -> None:
    """Twenty copies of an image say as much as one."""
    logits, targets = drawn(40, 1.3, seed=5)
    many, groups = np.repeat(logits, 20, axis=0), np.repeat(np.arange(40), 20)
    repeated = np.repeat(targets, 20)
    assert fit_temperature(many, repeated, 40) == pytest.approx(fit_temperature(logits, targets), rel=1e-3)
    assert "40 groups" in calibrate(many, repeated, groups).reason
    assert calibrate(many, repeated).temperature > 1  # the control


def test_the_error_falls_on_logits_that_are_too_sure() -> None:
    val, test = drawn(400, 2.5, seed=6), drawn(2000, 2.5, seed=7)
    found = check_calibration(*test, calibrate(*val))
    assert found.before is not None
    assert found.after.value < found.before.value / 3
    assert found.after.high < found.before.low
    for each in (found.before, found.after):
        assert each.low <= each.value <= each.high


def test_intervals_by_groups_are_wider() -> None:
    logits, targets = drawn(60, 2.5, seed=8)
    many, groups = np.repeat(logits, 8, axis=0), np.repeat(np.arange(60), 8)
    of_images = check_calibration(many, np.repeat(targets, 8), Calibration())
    of_groups = check_calibration(many, np.repeat(targets, 8), Calibration(), groups)
    assert of_groups.after.high - of_groups.after.low > 1.5 * (of_images.after.high - of_images.after.low)


def test_words() -> None:
    assert Calibration(1.3, "val", 1200).in_words == "1.3, fitted on the 1,200 images of val"
    assert "too small" in calibrate(*drawn(20, 1.0, seed=0)).in_words
    assert Calibration().in_words.startswith("none")


@pytest.mark.parametrize("entry", [{"temperature": 0}, {"temperature": "1"}, {"n": -1}, {"reason": 3}])
def test_a_damaged_entry_is_refused(entry: dict[str, object]) -> None:
    good = Calibration(1.2, "val", 7).to_dict()
    assert Calibration.from_dict(good) == Calibration(1.2, "val", 7)
    del good["reason"]  # as version 0.9 wrote it
    assert Calibration.from_dict(good) == Calibration(1.2, "val", 7)
    with pytest.raises(ValueError):
        Calibration.from_dict(good | entry)
