"""A card is checked against the bounds of a recipe before a network is built from it."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.checkpoint.card import ModelCard
from finetune.errors import CheckpointError, FinetuneError
from finetune.recipe.limits import IMAGE_SIZE, RESIZE
from finetune.training.run.position import Position

SOUND: dict[str, Any] = {
    "format": 1,
    "architecture": {"backbone": "squeezenet1_1", "auxiliary": True, "head": {"path": "x", "dropout": 0.0}},
    "classes": ["a", "b"],
    "preprocessing": {
        "image_size": 32,
        "resize": 36,
        "resize_mode": "shorter",
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    },
}
NAN, INF = float("nan"), float("inf")
WRONG: list[Any] = [None, True, "", "5", [], {}, -1, 0, 2.5, NAN, INF, 10**9, 10**30, 10**400]


def with_(path: str, value: Any) -> dict[str, Any]:
    card = copy.deepcopy(SOUND)
    at: Any = card
    *parents, last = path.split(".")
    for part in parents:
        at = at[part]
    at[last] = value
    return card


def refused(card: Any) -> str:
    with pytest.raises(CheckpointError, match=r"^card\.json: ") as caught:
        ModelCard.from_dict(card, "card.json")
    return str(caught.value)


def test_the_bounds_are_accepted() -> None:
    for size in IMAGE_SIZE:
        ModelCard.from_dict(with_("preprocessing.image_size", size), "card.json")
    for size in RESIZE:
        ModelCard.from_dict(with_("preprocessing.resize", size), "card.json")


@pytest.mark.parametrize("key", ["image_size", "resize"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
def test_sizes_out_of_bounds_are_refused(key: str, value: Any) -> None:
    assert key in refused(with_(f"preprocessing.{key}", value))


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize(
    "value",
    [None, [], [0.5], [0.5, 0.5], [0.1] * 65, [0.5, 0.5, NAN], [0.5, INF, 1], [0.5, "1", 1], [1, 10**400, 1]],
    ids=lambda value: repr(value)[:20],
)
def test_impossible_means_and_stds_are_refused(key: str, value: Any) -> None:
    assert "preprocessing" in refused(with_(f"preprocessing.{key}", value))


@pytest.mark.parametrize("value", [0, -1, 1e-320])
def test_a_std_of_zero_or_less_is_refused(value: float) -> None:
    assert "std must be positive" in refused(with_("preprocessing.std", [0.2, value, 0.2]))


def test_too_many_channels_are_refused() -> None:
    card = with_("preprocessing.mean", [0.5] * 65)
    card["preprocessing"]["std"] = [0.5] * 65
    assert "channels must be from 1 to 64" in refused(card)


@pytest.mark.parametrize("classes", [None, [], "ab", ["a", 1], ["a", "b", "a"], ["a", ""], {"a": 1}])
def test_impossible_classes_are_refused(classes: Any) -> None:
    assert "'classes'" in refused(with_("classes", classes))


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("image_size", [10**9, -1, True, "32", 2.5]),
        ("in_channels", [0, 65, 10**9, True, 3.0]),
        ("head.hidden", [0, 10**9, True, 2.5]),
        ("head.dropout", [1, -1, NAN, "0", None, True]),
        ("head.path", [None, 5, ["fc"]]),
        ("head.cut", [{}, {"at": "x", "pool": [1], "in_features": 10**12}]),
        ("head.cut", [{"at": "x", "pool": [10**9], "in_features": 1}]),
        ("backbone", [None, 7, ["x"]]),
        ("auxiliary", [None, 1, "yes"]),
    ],
)  # fmt: skip
def test_impossible_architectures_are_refused(path: str, values: list[Any]) -> None:
    from finetune.model.build import rebuild

    for value in values:
        card = ModelCard.from_dict(with_(f"architecture.{path}", value), "card.json")
        with pytest.raises(CheckpointError, match="architecture"):
            rebuild(card.architecture, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WRONG),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=6,
)
PATHS = [*SOUND, *(f"preprocessing.{key}" for key in SOUND["preprocessing"])]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_any_value_is_accepted_or_refused(path: str, value: Any) -> None:
    card = json.loads(json.dumps(with_(path, value)))
    try:
        read = ModelCard.from_dict(card, "card.json")
    except CheckpointError:
        return
    assert IMAGE_SIZE[0] <= read.preprocessing.image_size <= IMAGE_SIZE[1]
    assert len(set(read.classes)) == len(read.classes) > 0


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(Position().to_dict())), st.sampled_from(["", "images", "loss", "correct"]), JSON
)
def test_any_training_state_is_accepted_or_refused(name: str, below: str, value: Any) -> None:
    state = Position().to_dict()
    if below and isinstance(state[name], dict) and below in state[name]:
        state[name][below] = value
    else:
        state[name] = value
    try:
        read = Position.from_dict(json.loads(json.dumps(state)), "state.json")
    except FinetuneError:
        return
    for key, default in vars(Position()).items():
        if type(default) is int:
            assert 0 <= getattr(read, key) <= 2**53


@pytest.mark.parametrize("wrong", [NAN, INF, -1, "1", None, True, 10**400])
@pytest.mark.parametrize("name", ["val_top1", "val_loss", "epoch"])
def test_an_impossible_best_epoch_is_refused(name: str, wrong: Any) -> None:
    state = Position(epoch=1, metrics_lines=1).to_dict()
    state["best"] = {"epoch": 1, "val_top1": 0.5, "val_loss": 1.0} | {name: wrong}
    with pytest.raises(CheckpointError, match="is not a training state"):
        Position.from_dict(state, "state.json")
