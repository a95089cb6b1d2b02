"""Split folders and class folders: read if the layout is certain, refused if it is ambiguous."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions
from finetune.data.sources.names.split_names import split_from_name
from finetune.data.sources.read import read_source
from finetune.errors import DataError

Put = Callable[..., Path]
AS_CLASSES = SourceOptions(as_classes=True)


def tree(folder: str, classes: tuple[str, ...] = ("cat", "dog"), count: int = 1) -> list[str]:
    return [f"{folder}/{name}/{number}.jpg" for name in classes for number in range(count)]


@pytest.fixture
def touch(tmp_path: Path) -> Put:
    """Empty files below a folder ``data``."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "data"

    return write


def layout(source: Source) -> dict[str, list[str]]:
    """Split -> the classes that have images in it."""
    return {
        name: [source.classes[k] for k in sorted(set(split.targets.tolist()))]
        for name, split in source.splits.items()
    }


def refused(root: Path, reading: SourceOptions = DEFAULT_OPTIONS) -> str:
    with pytest.raises(DataError) as caught:
        read_source(str(root), reading)
    return str(caught.value)


PAIRS = [
    ("training_set", "test_set"), ("Training Set", "Test Set"), ("seg_train", "seg_test"), ("TRAIN", "TEST"),
    ("trainset", "testset"), ("train_images", "test_images"), ("TrainImages", "TestImages"),
    ("Train-Data", "Test-Data"), ("01_train", "02_test"), ("train2017", "test2017"),
    ("data.train", "data.test"),
    ("hotdog-train", "hotdog-test"), ("train", "holdout"), ("training", "evaluation"), ("trainval", "test"),
    ("train", "kaggle_test"), ("my_train_photos", "my_test_photos"),
]  # fmt: skip
# Folders around the splits, and within them around the classes.
AROUND = ["", "images/", "data/images/", "archive/photos/", "My Set (1)/"]
WITHIN = ["", "/{split}", "/images", "/{split}/images", "/flowers"]


@pytest.mark.parametrize(("train", "test"), PAIRS)
@pytest.mark.parametrize("around", ["", "archive/photos/"])
def test_splits_are_recognised_by_name(train: str, test: str, around: str, touch: Put) -> None:
    root = touch(*tree(around + train), *tree(around + test))
    source = read_source(str(root))
    assert layout(source) == {"train": ["cat", "dog"], "test": ["cat", "dog"]}
    if train.lower() != "train" or test.lower() != "test":
        assert any(f"{train}/ as train" in note and f"{test}/ as test" in note for note in source.notes)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("seg_train", "seg_valid"), ("Training", "Dev")]
)
def test_folders_around_splits_and_classes(
    around: str, within: str, train: str, val: str, touch: Put
) -> None:
    names = [around + each + within.format(split=each) for each in (train, val)]
    source = read_source(str(touch(*tree(names[0]), *tree(names[1]))))
    assert layout(source) == {"train": ["cat", "dog"], "val": ["cat", "dog"]}
    assert any("the only folder with images" in note for note in source.notes) == bool(around)
    assert any("the classes are the folders in" in note for note in source.notes) == bool(within)


def test_images_without_labels_beside_splits_are_skipped(touch: Put) -> None:
    """The layout of Kaggle's Intel scenes."""
    root = touch(*tree("seg_train/seg_train"), *tree("seg_test/seg_test"), "seg_pred/seg_pred/1.jpg")
    source = read_source(str(root))
    assert layout(source) == {"train": ["cat", "dog"], "test": ["cat", "dog"]}
    assert any("skipped images without labels in 'seg_pred'" in note for note in source.notes)


def test_a_test_folder_with_one_unlabelled_folder(touch: Put) -> None:
    source = read_source(str(touch(*tree("train"), *tree("val"), "test/images/1.jpg")))
    assert list(source.splits) == ["train", "val"]
    assert any("no labels" in note for note in source.notes)


def test_a_class_may_have_a_generic_name(touch: Put) -> None:
    root = touch(*tree("train", ("photo", "sketch")), *tree("test", ("photo",)))
    assert layout(read_source(str(root))) == {"train": ["photo", "sketch"], "test": ["photo"]}


def test_val_and_test_may_lack_classes(touch: Put) -> None:
    root = touch(*tree("my_train", ("a", "b", "c")), *tree("my_test", ("b",)))
    assert layout(read_source(str(root))) == {"train": ["a", "b", "c"], "test": ["b"]}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        # Classes that contain the same splits, sites or folds.
        (tree("siteA") + tree("siteB"), "give a single folder such as siteA"),
        (tree("fold1") + tree("fold2") + tree("fold3"), "'fold1', 'fold2', 'fold3' contain the same folders"),
        (tree("fold_a") + tree("fold_b", ("cat",)), "Which are the classes?"),
        (tree("camera 1", ("0", "1")) + tree("camera 2", ("0", "1")), "data.layout: classes"),
        (tree("cat", ("indoor", "outdoor")) + tree("dog", ("indoor", "outdoor")), "data.layout: classes"),
        (tree("train/siteA") + tree("train/siteB"), "train: 'siteA', 'siteB' contain the same folders"),
        (tree("a") + tree("b") + ["c/1.jpg"], "'a', 'b' contain the same folders"),
        # The layout of Office-31: the classes are one folder deeper.
        (tree("amazon/images") + tree("webcam/images"), "'amazon', 'webcam' contain the same folders"),
        (tree("north/2020") + tree("north/2021") + tree("south/2021"), "'north', 'south' contain the same"),
        (tree("a/x/train") + tree("a/x/test") + tree("b/y/train") + tree("b/y/test"), "named train, val or"),
        (tree("train/train") + tree("train/test"), "train: this train folder contains folders named"),
        (tree("train/cat", ("train", "test")) + tree("test"), "folder contains folders named train"),
        # A class that contains its splits.
        (tree("cat", ("train", "test")) + tree("dog", ("train", "test")), "put the split first"),
        ([*tree("cat", ("Training_Set", "Test_Set")), "dog/1.jpg"], "'cat' contain folders named train"),
        (tree("one/train") + tree("two/train"), "give one of them, such as"),
        (["cat_train/1.jpg", "cat_test/1.jpg", "dog-train/1.jpg", "dog-test/1.jpg"], "test/cat/"),
        # Splits without classes.
        (["training_set/1.jpg", "test_set/2.jpg"], "no class folders"),
        (["seg_train/1.jpg", "seg_test/2.jpg"], "no class folders"),
        (["train/1.jpg", "test/2.jpg", "samples/3.jpg"], "no class folders"),
        (["train/images/1.jpg", "test/images/2.jpg"], "no class folders"),
        # Names that may mean splits.
        (tree("hotdog_train", ("a", "b")) + tree("hotdog_test", ("c", "d")), "may be splits or classes"),
        ([*tree("train_set"), "car/3.jpg"], "ambiguous"),
        (tree("train") + tree("other_test", ("x", "y")), "ambiguous"),
        (tree("images/train") + tree("images/test") + tree("images/other"), "images: this layout is"),
        (tree("photos", ("train", "test")) + tree("masks", ("train", "test")), "'masks', 'photos'"),
        # No train, or two.
        (tree("val_set") + tree("test_set"), "no train/"),
        (tree("train") + tree("training_set"), "are both train"),
        (tree("train") + tree("test") + tree("eval"), "are both test"),
    ],
)  # fmt: skip
def test_ambiguous_layouts_are_refused_with_instructions(names: list[str], said: str, touch: Put) -> None:
    assert said in refused(touch(*names))


def test_the_instructions_of_a_refusal_work(touch: Put) -> None:
    root = touch(*tree("siteA"), *tree("siteB"))
    assert "as in cat/siteA_1.jpg" in refused(root)
    assert read_source(str(root / "siteA")).classes == ("cat", "dog")
    for path in sorted(root.glob("*/*/*")):
        target = root / path.parent.name / f"{path.parent.parent.name}_{path.name}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for site in ("siteA", "siteB"):
        shutil.rmtree(root / site)
    assert layout(read_source(str(root))) == {"all": ["cat", "dog"]}


def test_folders_named_after_class_and_split_are_refused(touch: Put) -> None:
    root = touch("cat_train/1.jpg", "cat_test/2.jpg", "dog_train/3.jpg", "dog_test/4.jpg")
    assert "cat_test/ becomes test/cat/" in refused(root)
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (root / split).mkdir(exist_ok=True)
            (root / f"{name}_{split}").rename(root / split / name)
    assert layout(read_source(str(root))) == {"train": ["cat", "dog"], "test": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["training shoes/1.jpg", "running shoes/2.jpg"], ["running shoes", "training shoes"]),
        (["contest/1.jpg", "valley/2.jpg"], ["contest", "valley"]),
        (["test/1.jpg", "control/2.jpg"], ["control", "test"]),
        (["valid/1.jpg", "invalid/2.jpg"], ["invalid", "valid"]),
        (["trains/1.jpg", "cars/2.jpg"], ["cars", "trains"]),
        (["training shoes/1.jpg", "test tubes/2.jpg"], ["test tubes", "training shoes"]),
        (tree("training shoes", ("nike", "puma")) + tree("boots", ("red", "blue")), None),
        (tree("test tubes", ("glass", "wood")) + tree("training shoes", ("x", "y")), None),
        ([*tree("sports", ("training shoes", "test tubes")), "boots/1.jpg"], None),
        # Parts of classes: dates, generic words, and folders that only some classes share.
        (tree("cat", ("2020", "2021")) + tree("dog", ("2020", "2021")), ["cat", "dog"]),
        (tree("cat", ("2020-01", "2020-02")) + tree("dog", ("2020-01", "2020-02")), ["cat", "dog"]),
        (tree("cat", ("images",)) + tree("dog", ("images",)), ["cat", "dog"]),
        (tree("cat", ("part 1", "part 2")) + tree("dog", ("part 1", "part 2")), ["cat", "dog"]),
        (tree("cat", ("persian", "siamese")) + tree("dog", ("poodle", "boxer")), ["cat", "dog"]),
        (tree("a", ("x", "y")) + tree("b", ("x", "y")) + ["c/1.jpg", "d/1.jpg", "e/1.jpg"], list("abcde")),
        (["cat/1.jpg", "cat/2.jpg", "cat/a/3.jpg", "cat/b/4.jpg", "dog/5.jpg", "dog/a/6.jpg"], None),
    ],
)  # fmt: skip
def test_classes_stay_classes(names: list[str], classes: list[str] | None, touch: Put) -> None:
    source = read_source(str(touch(*names)))
    found = {name.split("/")[0] for name in names}
    assert list(source.splits) == ["all"]
    assert source.classes == tuple(classes or sorted(found))
    if any(split_from_name(name.split("_")[0].split()[0]) for name in found):
        assert any("named like splits" in note for note in source.notes)


@pytest.mark.parametrize(
    "names",
    [
        tree("siteA") + tree("siteB"),
        tree("cat", ("indoor", "outdoor")) + tree("dog", ("indoor", "outdoor")),
        tree("train") + tree("test"),
        [*tree("train"), "car/1.jpg"],
        ["train_set/1.jpg", "test_set/1.jpg"],
        tree("cat", ("train", "test")) + tree("dog", ("train", "test")),
        ["cat_train/1.jpg", "cat_test/1.jpg", "dog_train/1.jpg", "dog_test/1.jpg"],
    ],
)
def test_layout_classes_reads_every_folder_as_a_class(names: list[str], touch: Put) -> None:
    source = read_source(str(touch(*names)), AS_CLASSES)
    assert list(source.splits) == ["all"]
    assert set(source.classes) == {name.split("/")[0] for name in names}
    assert len(source.splits["all"]) == len(names)


def test_an_empty_class_inside_an_outer_folder_is_an_error(touch: Put) -> None:
    root = touch(*tree("images/train"), *tree("images/test"))
    (root / "images/train/owl").mkdir()
    assert f"{root}/images/train: no images in 'owl'" in refused(root)


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("CAT", "cat"),
        ("cat ", "cat"),
        ("hot  dog", "Hot dog"),
        ("ﬁsh", "fish"),
        (NFC, NFD.upper()),
    ],
)
@pytest.mark.parametrize("splits", [("", ""), ("train/", "train/"), ("train/", "val/")])
def test_equivalent_class_names_are_refused(
    one: str, other: str, splits: tuple[str, str], touch: Put
) -> None:
    first, second = splits
    root = touch(f"{first}{one}/1.jpg", f"{second}{other}/2.jpg", f"{first}owl/3.jpg", f"{second}owl/4.jpg")
    written = [each for side in {first, second} for each in (root / side).iterdir()]
    if len(written) < 2 + len({first, second}):
        pytest.skip("this file system holds one of the two")
    said = refused(root)
    assert "differ only in case, spaces or Unicode form" in said
    assert "rename" in said


def test_two_unicode_forms_of_one_name_are_refused(touch: Put) -> None:
    root = touch(f"{NFC}/1.jpg", f"{NFD}/2.jpg", "owl/3.jpg")
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system holds one of the two")
    assert "Unicode" in refused(root)


def test_similar_class_names_give_a_note(touch: Put) -> None:
    source = read_source(str(touch("cat/1.jpg", "cats/2.jpg", "owl/3.jpg")))
    assert source.classes == ("cat", "cats", "owl")
    assert any("'cat' (1) and 'cats' (1) differ in singular and plural only" in note for note in source.notes)


def test_options_that_do_not_apply_are_refused(touch: Put) -> None:
    root = touch("cat/1.jpg", "dog/2.jpg")
    assert "CSV files only" in refused(root, SourceOptions(split_column="phase"))
    assert read_source(str(root), SourceOptions(split_column="none")).classes == ("cat", "dog")
    with pytest.raises(DataError, match="folders only"):
        read_source("digits", AS_CLASSES)


NAME = st.sampled_from(["cat", "dog", "train", "test", "Train_Set", "seg_test", "images", "2020", "siteA"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(st.lists(st.lists(NAME, min_size=1, max_size=4), min_size=1, max_size=10))
def test_every_image_is_read_or_reported_once(tmp_path_factory: Any, paths: list[list[str]]) -> None:
    """Any tree of files is refused with a message, or each image is read or reported once."""
    root = tmp_path_factory.mktemp("tree")
    for number, parts in enumerate(paths):
        folder = root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").touch()
    try:
        source = read_source(str(root))
    except DataError:
        return
    names = [split.name(i) for split in source.splits.values() for i in range(len(split))]
    assert len(names) == len(set(names)) > 0
    if list(source.splits) == ["all"]:
        # A class with the name of a split is always reported.
        named = [name for name in source.classes if split_from_name(name)]
        assert not named or any("named like splits" in note for note in source.notes)
    if len(names) < len(paths):
        assert any("skipped" in note for note in source.notes)
