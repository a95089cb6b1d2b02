from hypothesis import given
from hypothesis import strategies as st

from finetune.data.keys import key

parts = st.lists(st.one_of(st.integers(), st.text()), max_size=4)


def test_keys_never_change() -> None:
    # Recorded. Another value would change every run that is resumed with a newer version.
    assert key(0) == 7754967453105325484
    assert key(0, "shuffle", 3) == 644406008909708850


@given(st.integers(0, 2**32 - 1), parts, parts)
def test_different_parts_give_different_keys(seed: int, one: list[int | str], other: list[int | str]) -> None:
    assert 0 <= key(seed, *one) < 2**64
    assert (key(seed, *one) == key(seed, *other)) == (one == other)


def test_types_and_borders_of_parts_count() -> None:
    keys = [key(1, "1"), key(1, 1), key(1, 1, 1), key(1, 11), key(11), key(1, "ab", "c"), key(1, "a", "bc")]
    assert len(set(keys)) == len(keys)
