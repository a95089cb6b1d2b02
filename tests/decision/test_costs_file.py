"""Costs from YAML files and from Python: what they mean, and every fault at its place."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.decision.costs_file import costs_from, read_costs
from finetune.errors import UserError

CLASSES = ("benign", "malignant", "no lesion")


def test_a_file_names_some_pairs(tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text("costs:\n  malignant: {benign: 10, no lesion: 20}\n  benign: {malignant: 0.5}\n")
    costs = read_costs(path, CLASSES)
    assert costs.matrix(CLASSES).tolist() == [[0, 0.5, 1], [10, 0, 20], [1, 1, 0]]
    assert (
        costs_from({"malignant": {"benign": 10, "no lesion": 20}, "benign": {"malignant": 0.5}}, CLASSES)
        == costs
    )


def test_all_faults_come_at_once_each_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text(
        "cost: {}\n"
        "costs:\n"
        "  malignat: {benign: 10}\n"
        "  malignant: {benin: 1, benign: -2}\n"
        "  benign: 3\n"
        "  no lesion: {benign: many, malignant: .inf}\n"
    )
    with pytest.raises(UserError) as caught:
        read_costs(path, CLASSES)
    lines = str(caught.value).splitlines()
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in lines] == [
        "1:1", "3:3", "4:15", "4:33", "5:11", "6:23", "6:40"
    ]  # fmt: skip
    assert "Did you mean 'costs'?" in lines[0]
    assert "unknown class. Did you mean 'malignant'?" in lines[1]
    assert "Did you mean 'benign'?" in lines[2]
    assert "from 0 to 1e+09; it is -2" in lines[3]
    assert "must map predicted classes to costs; it is 3" in lines[4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write costs:"),
        ("- 1\n", "write costs: .*; this is a list of 1"),
        ("costs: 5\n", "must map true classes"),
        ("costs: {a: b: c}\n", "not valid YAML"),
        ("costs: {zebra: {}}\n", "The classes are 'benign', 'malignant', 'no lesion'"),
        ("costs: {benign: {malignant: 0, no lesion: 0}, malignant: {benign: 0, no lesion: 0}, "
         "no lesion: {benign: 0, malignant: 0}}\n", "no mistake costs more"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_costs_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_costs(path, CLASSES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read \(No such file"):
        read_costs(tmp_path / "gone.yaml", CLASSES)


def test_costs_from_python_are_checked_alike() -> None:
    with pytest.raises(UserError, match=r"costs\.benign\.malignnt: unknown class"):
        costs_from({"benign": {"malignnt": 1}}, CLASSES)


LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
NAMES = st.sampled_from(CLASSES) | st.text() | st.integers()


@settings(max_examples=40)
@given(st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner), max_leaves=8))
def test_any_value_gives_costs_or_a_user_error(value: object) -> None:
    try:
        costs_from(value, CLASSES).matrix(CLASSES)  # type: ignore[arg-type]
    except UserError:
        return


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_any_bytes_give_costs_or_a_user_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "costs.yaml"
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_costs(path, CLASSES)
