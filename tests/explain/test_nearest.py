"""Nearest neighbours by cosine similarity."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from finetune.explain.features import nearest as module
from finetune.explain.features.nearest import nearest


def rows(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, 6)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1 << 22, 60, 1])
def test_neighbours_are_those_of_scikit_learn(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    query, pool = rows(9, 0), rows(50, 1)
    distances, indices = NearestNeighbors(n_neighbors=4, metric="cosine").fit(pool).kneighbors(query)
    found, similarities = nearest(query, pool, 4)
    assert np.array_equal(found, indices)
    assert np.allclose(similarities, 1 - distances, atol=1e-6)


def test_a_row_is_its_own_nearest_with_similarity_1() -> None:
    pool = rows(200, 2)
    found, similarities = nearest(pool, pool, 2)
    assert found[:, 0].tolist() == list(range(200))
    assert (similarities[:, 0] == 1.0).all()
    assert (similarities[:, 1] < 1.0).all()


def test_of_equals_the_first_comes_first() -> None:
    # Lengths do not matter, and sums in another order do not break the tie.
    row = rows(1, 3)
    pool = np.concatenate([rows(40, 4), row * 3, rows(40, 5), row, row * 0.1])
    found, similarities = nearest(row, pool, 3)
    assert found.tolist() == [[40, 81, 82]]
    assert similarities.tolist() == [[1.0, 1.0, 1.0]]


def test_ends() -> None:
    pool = rows(3, 6)
    assert nearest(rows(2, 7), pool, 10)[0].shape == (2, 3)
    assert nearest(rows(0, 7), pool, 2)[0].shape == (0, 2)
    assert nearest(rows(2, 7), rows(0, 6), 2)[0].shape == (2, 0)
    # Zeros have no direction.
    assert nearest(np.zeros((1, 6), np.float32), pool, 1)[1].tolist() == [[0.0]]
    assert nearest(-pool[:1], pool[:1], 1)[1].tolist() == [[-1.0]]
