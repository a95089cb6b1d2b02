"""torchvision's sets, read from generated files; downloads are only attempted, from loopback."""

import csv
import pickle
import socket
import struct
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from finetune.data.cache.contents import cache_folder
from finetune.data.sources.named import torchvision_sets
from finetune.data.sources.named.torchvision_sets import SETS
from finetune.data.sources.read import read_source
from finetune.errors import DataError


@pytest.fixture
def root() -> Path:
    path = cache_folder() / "torchvision"
    path.mkdir(parents=True)
    return path


@pytest.fixture(autouse=True)
def _files_count_as_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns off torchvision's checksums, which generated files cannot match."""
    for module in ("cifar", "flowers102", "fer2013"):
        name = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(name, lambda path, md5=None: Path(path).is_file())


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def image(path: Path, size: tuple[int, int] = (9, 7), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (200, 10, 10)).save(path, "JPEG", exif=exif)


def refused(name: str) -> str:
    with pytest.raises(DataError) as caught:
        read_source(name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_sets_of_grey_arrays(name: str, root: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (20, 28, 28)), np.arange(20) % 10
    for part, count in (("train", 20), ("t10k", 10)):
        idx(root / name / "raw" / f"{part}-images-idx3-ubyte", pixels[:count])
        idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", labels[:count])
    source = read_source(f"torchvision:{name}")
    assert {split: len(own) for split, own in source.splits.items()} == {"train": 20, "test": 10}
    assert len(source.classes) == 10
    assert source.classes == tuple(getattr(torchvision.datasets, name).classes)
    np.testing.assert_array_equal(source.splits["train"].targets, labels)
    np.testing.assert_array_equal(np.asarray(source.splits["train"].open(3))[..., 2], pixels[3])
    assert source.splits["test"].name(4) == f"{name}/test/4"


def test_a_class_without_images_is_dropped(root: Path) -> None:
    """EMNIST's letters have a class "N/A" with number 0."""
    for part in ("train", "test"):
        idx(root / "EMNIST" / "raw" / f"emnist-letters-{part}-images-idx3-ubyte", np.zeros((52, 28, 28)))
        idx(root / "EMNIST" / "raw" / f"emnist-letters-{part}-labels-idx1-ubyte", np.arange(52) % 26 + 1)
        for other in SETS["EMNIST"].variants:
            for kind in ("images-idx3", "labels-idx1"):
                path = root / "EMNIST" / "raw" / f"emnist-{other}-{part}-{kind}-ubyte"
                path.touch(exist_ok=True)
    source = read_source("torchvision:EMNIST/letters")
    assert source.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert source.splits["train"].targets.tolist() == [*range(26), *range(26)]
    assert "'N/A'" in source.notes[0]


def test_sets_of_colour_arrays(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = ["airplane", "automobile", "bird"]
    for file in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (6, 3072), dtype=np.uint8)
        (folder / file).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 0, 1, 2]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    source = read_source("torchvision:CIFAR10")
    assert source.classes == tuple(names)
    assert {split: len(own) for split, own in source.splits.items()} == {"train": 30, "test": 6}
    expected = torchvision.datasets.CIFAR10(str(root), train=False)
    for index in (0, 5):
        assert source.splits["test"].open(index).tobytes() == expected[index][0].tobytes()
        assert source.splits["test"].targets[index] == expected[index][1]


def test_sets_of_files_with_official_splits(root: Path) -> None:
    folder = root / "flowers-102"
    for number in range(1, 307):
        image(folder / "jpg" / f"image_{number:05d}.jpg", orientation=6 if number == 1 else 1)
    numbers = np.arange(1, 307)
    savemat(folder / "imagelabels.mat", {"labels": (numbers - 1) % 102 + 1})
    savemat(folder / "setid.mat", {"trnid": numbers[:102], "valid": numbers[102:204], "tstid": numbers[204:]})
    source = read_source("torchvision:Flowers102")
    assert list(source.splits) == ["train", "val", "test"]
    assert len(source.classes) == len(set(source.classes)) == 102
    assert source.splits["val"].targets.tolist() == list(range(102))
    assert source.splits["train"].name(0) == str(folder / "jpg" / "image_00001.jpg")
    # The EXIF orientation is applied, as for all image files.
    assert source.splits["train"].open(0).size == (7, 9)


def test_synonyms_of_classes_and_nested_files(root: Path) -> None:
    wnids = ["n01440764", "n02102040"]
    for split in ("train", "val"):
        for wnid in torchvision.datasets.Imagenette._WNID_TO_CLASS:
            image(root / "imagenette2-320" / split / wnid / f"{wnid}_1.JPEG")
    source = read_source("torchvision:Imagenette")
    assert list(source.splits) == ["train", "val"]
    assert source.classes[:2] == ("tench", "English springer")
    assert all(wnid in source.splits["val"].name(i) for i, wnid in enumerate(wnids))


def test_sets_without_official_splits(root: Path) -> None:
    for name in ("River", "Forest"):
        image(root / "eurosat" / "2750" / name / f"{name}_1.jpg")
    source = read_source("torchvision:EuroSAT")
    assert source.classes == ("Forest", "River")
    assert list(source.splits) == ["all"]


def test_a_set_without_files_or_arrays(root: Path) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "ant", "bass"):
        for number in (1, 2):
            image(folder / name / f"image_{number:04d}.jpg")
    (root / "caltech101" / "Annotations").mkdir()
    (folder / "bass" / "image_0002.jpg").write_bytes(b"gone bad")
    source = read_source("torchvision:Caltech101")
    assert source.classes == ("ant", "bass")
    assert source.splits["all"].targets.tolist() == [0, 0, 1, 1]
    assert source.splits["all"].open(1).mode == "RGB"
    with pytest.raises(DataError, match="Caltech101/all/3: UnidentifiedImageError"):
        source.splits["all"].open(3)


def test_a_split_without_labels_is_skipped(root: Path) -> None:
    (root / "fer2013").mkdir()
    for name, columns in (("train", ["emotion", "pixels"]), ("test", ["pixels"])):
        with (root / "fer2013" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for emotion in (0, 1):
                row = {"emotion": emotion, "pixels": " ".join(["7"] * 48 * 48)}
                writer.writerow({column: row[column] for column in columns})
    source = read_source("torchvision:FER2013")
    assert source.classes == ("0", "1")
    assert list(source.splits) == ["train"]
    assert "no labels" in source.notes[0]
    assert source.splits["train"].open(0).getpixel((5, 5)) == (7, 7, 7)


def test_names_and_variants() -> None:
    named = torchvision_sets._class_names
    assert named(["a", "b"]) == ["a", "b"]
    assert named([("crane",), ("crane", "bird"), ("ox", "bull")]) == ["crane", "crane, bird", "ox"]
    assert named(["x", "x"]) == ["x (0)", "x (1)"]


def test_an_unknown_name_is_an_error() -> None:
    message = refused("torchvision:cifar-10")
    assert "Did you mean 'CIFAR10'?" in message
    assert "Flowers102" in message
    assert "no variants" in refused("torchvision:MNIST/letters")
    assert "balanced" in refused("torchvision:EMNIST/letter")


@pytest.mark.parametrize("name", SETS)
def test_torchvision_has_every_set(name: str) -> None:
    assert hasattr(torchvision.datasets, name)


@pytest.mark.parametrize("name", ["StanfordCars", "FGVCAircraft"])
def test_sets_without_download_give_instructions(name: str) -> None:
    message = refused(f"torchvision:{name}")
    assert "torchvision cannot download it" in message
    assert str(cache_folder() / "torchvision") in message


def test_a_failed_download_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server listens there; the plain http address is requested over https."""
    asked: list[str] = []
    do_open = urllib.request.HTTPSHandler.https_open

    def https_open(self: urllib.request.HTTPSHandler, request: urllib.request.Request) -> object:
        asked.append(request.full_url)
        return do_open(self, request)

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/mnist/"])
    opener, patience = vars(urllib.request)["_opener"], socket.getdefaulttimeout()
    message = refused("torchvision:MNIST")
    assert "torchvision could not download it" in message
    assert "refused" in message
    assert str(cache_folder() / "torchvision") in message
    assert "FINETUNE_CACHE" in message
    assert asked
    assert all(url.startswith("https://127.0.0.1:9/mnist/") for url in asked)
    assert vars(urllib.request)["_opener"] is opener
    assert socket.getdefaulttimeout() == patience


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://127.0.0.1:9/x?y=1", "https://127.0.0.1:9/x?y=1"),
        ("HTTP://127.0.0.1:9/x", "https://127.0.0.1:9/x"),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t.gz",
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/t.gz",
        ),
    ],
)
def test_http_becomes_https(url: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def https_open(self: object, request: urllib.request.Request) -> object:
        seen.append(request.full_url)
        raise OSError("far enough")

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    with torchvision_sets._https_only(), pytest.raises(OSError, match="far enough"):
        urllib.request.urlopen(url)
    assert seen == [asked]
