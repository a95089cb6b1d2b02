"""The order of epochs: every image once, or every class equally often; never another order."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.batches.sampling import balanced, repeats, shuffled

labels = st.lists(st.integers(0, 5), min_size=1, max_size=60)
epochs = st.integers(0, 50)


@given(st.integers(1, 200), epochs)
def test_a_shuffle_takes_every_image_once(count: int, epoch: int) -> None:
    assert sorted(shuffled(count, 1, epoch)) == list(range(count))


def test_epochs_and_seeds_have_different_orders() -> None:
    assert len({shuffled(30, 1, epoch).tobytes() for epoch in range(50)}) == 50
    assert len({shuffled(30, seed, 0).tobytes() for seed in range(50)}) == 50


def test_the_order_never_changes() -> None:
    # Recorded. A run that is resumed with a newer version must continue in the same order.
    assert shuffled(8, seed=0, epoch=0).tolist() == [7, 1, 6, 3, 5, 4, 2, 0]


@given(labels, epochs)
def test_balanced_draws_every_class_equally_often(targets: list[int], epoch: int) -> None:
    array = np.array(targets)
    order = balanced(array, 3, epoch)
    assert len(order) == len(targets)
    drawn = Counter(array[order].tolist())
    quotas = [drawn.get(label, 0) for label in set(targets)]
    assert max(quotas) - min(quotas) <= 1


@given(labels, epochs)
def test_balanced_takes_all_of_a_class_before_any_twice(targets: list[int], epoch: int) -> None:
    array = np.array(targets)
    order = balanced(array, 3, epoch)
    for label in set(targets):
        of_class = [int((order == i).sum()) for i in np.flatnonzero(array == label)]
        assert max(of_class) - min(of_class) <= 1


def test_balanced_draws_every_image_over_the_epochs() -> None:
    targets = np.array([0] * 50 + [1] * 4)
    seen = {int(i) for epoch in range(30) for i in balanced(targets, 0, epoch)}
    assert seen == set(range(54))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=50))
def test_repeats_count_earlier_draws(drawn: list[int]) -> None:
    assert repeats(np.array(drawn)).tolist() == [
        drawn[:place].count(each) for place, each in enumerate(drawn)
    ]
