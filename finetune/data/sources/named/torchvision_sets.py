"""torchvision's classification data sets, by name, with their official splits.

torchvision downloads a set and reads its lists. Its files or arrays are then read like those of any source.
"""

import re
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.cache.contents import VARIABLE, cache_folder
from finetune.data.dataset import Source, Split, quoted
from finetune.data.images import ArrayImages, FileImages, Images, TorchvisionImages
from finetune.data.sources.names.class_names import check_split_classes
from finetune.errors import DataError, printable
from finetune.offline import NOT_FETCHED, is_offline
from finetune.recipe.catalog import suggest

# Prefix in a recipe's data.source.
TORCHVISION_PREFIX = "torchvision:"
TIMEOUT_SECONDS = 30.0
# The maximum number of addresses in a message.
MOST_ADDRESSES = 8


@dataclass(frozen=True)
class TorchvisionSet:
    """How to construct one of torchvision's data sets.

    Attributes:
        splits: split -> constructor arguments.
        arguments: constructor arguments for all splits.
        variant_argument: the argument that selects a variant; a recipe writes ``NAME/VARIANT``.
        variants: its values; the first is the default.
        fetched: whether torchvision can download the set and check it. If not, the user must provide its
            files.
    """

    splits: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variant_argument: str = ""
    variants: tuple[str, ...] = ()
    fetched: bool = True


def _by_name(**official: str) -> dict[str, dict[str, str]]:
    return {split: {"split": name} for split, name in official.items()}


_TRAIN_OR_NOT = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST = _by_name(train="train", test="test")
_TRAIN_VAL_TEST = _by_name(train="train", val="val", test="test")
_UNDIVIDED: dict[str, dict[str, str]] = {"all": {}}

SETS = {
    "CIFAR10": TorchvisionSet(_TRAIN_OR_NOT),
    "CIFAR100": TorchvisionSet(_TRAIN_OR_NOT),
    "Caltech101": TorchvisionSet(_UNDIVIDED),
    "Caltech256": TorchvisionSet(_UNDIVIDED),
    "Country211": TorchvisionSet(_by_name(train="train", val="valid", test="test")),
    "DTD": TorchvisionSet(_TRAIN_VAL_TEST),
    "EMNIST": TorchvisionSet(
        _TRAIN_OR_NOT,
        variant_argument="split",
        variants=("balanced", "byclass", "bymerge", "letters", "digits", "mnist"),
    ),
    "EuroSAT": TorchvisionSet(_UNDIVIDED),
    "FER2013": TorchvisionSet(_TRAIN_TEST, fetched=False),
    "FGVCAircraft": TorchvisionSet(
        _TRAIN_VAL_TEST,
        variant_argument="annotation_level",
        variants=("variant", "family", "manufacturer"),
        fetched=False,
    ),
    "FashionMNIST": TorchvisionSet(_TRAIN_OR_NOT),
    "Flowers102": TorchvisionSet(_TRAIN_VAL_TEST),
    "Food101": TorchvisionSet(_TRAIN_TEST),
    "GTSRB": TorchvisionSet(_TRAIN_TEST),
    "Imagenette": TorchvisionSet(
        _by_name(train="train", val="val"), variant_argument="size", variants=("320px", "160px", "full")
    ),
    "KMNIST": TorchvisionSet(_TRAIN_OR_NOT),
    "MNIST": TorchvisionSet(_TRAIN_OR_NOT),
    "OxfordIIITPet": TorchvisionSet(_by_name(train="trainval", test="test")),
    "Places365": TorchvisionSet(_by_name(train="train-standard", val="val"), arguments={"small": True}),
    "QMNIST": TorchvisionSet(_TRAIN_OR_NOT),
    "RenderedSST2": TorchvisionSet(_TRAIN_VAL_TEST),
    "SEMEION": TorchvisionSet(_UNDIVIDED),
    "STL10": TorchvisionSet(_TRAIN_TEST),
    "SUN397": TorchvisionSet(_UNDIVIDED),
    "SVHN": TorchvisionSet(_TRAIN_TEST),
    "StanfordCars": TorchvisionSet(_TRAIN_TEST, fetched=False),
    "USPS": TorchvisionSet(_TRAIN_OR_NOT),
}


def read_torchvision(name: str) -> Source:
    """Read ``NAME`` or ``NAME/VARIANT`` of :data:`SETS` from ``<cache>/torchvision``; download it if missing.

    torchvision downloads and verifies the files, over https only. EMNIST's images are transposed, as in
    torchvision.

    Raises:
        DataError: the set or the variant does not exist, or its files are missing and cannot be downloaded.
    """
    set_name, _, variant = name.partition("/")
    source_name = f"{TORCHVISION_PREFIX}{printable(name)}"
    if set_name not in SETS:
        raise DataError(
            f"{source_name}: no such set.{suggest(set_name, SETS)} The sets are {', '.join(SETS)}."
        )
    official = SETS[set_name]
    if variant and variant not in official.variants:
        have = f"one of {', '.join(official.variants)}" if official.variants else "no variants"
        raise DataError(f"{source_name}: no such variant; {set_name} has {have}")
    arguments = dict(official.arguments)
    if official.variants:
        arguments[official.variant_argument] = variant or official.variants[0]
    datasets = {
        split: _load(source_name, set_name, {**arguments, **own}, official.fetched)
        for split, own in official.splits.items()
    }
    notes: list[str] = []
    splits = {}
    for split, dataset in datasets.items():
        images, targets = _read(dataset, f"{set_name}/{split}")
        if targets.min(initial=0) < 0:
            notes.append(f"{source_name}: skipped {split}, which has no labels")
            continue
        splits[split] = Split(images, targets)
    return _without_empty_classes(source_name, next(iter(datasets.values())), splits, notes)


def _load(source_name: str, set_name: str, arguments: dict[str, Any], fetched: bool) -> Any:
    """The data set, from disk or downloaded."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, set_name)
    root = cache_folder() / "torchvision"
    try:
        return kind(str(root), **arguments)
    except Exception as error:
        # Any exception means that files are missing or damaged.
        reason = _short_message(error)
    if fetched and is_offline():
        raise DataError(
            f"{source_name}: not found, and {NOT_FETCHED}.{_download_addresses(kind)}\n"
            f"{_manual_instructions(set_name)}"
        )
    if fetched:
        try:
            with _https_only():
                return kind(str(root), download=True, **arguments)
        except Exception as error:
            reason = _short_message(error)
    how = "torchvision could not download it" if fetched else "torchvision cannot download it"
    raise DataError(f"{source_name}: not found, and {how}: {reason}\n{_manual_instructions(set_name)}")


def _manual_instructions(set_name: str) -> str:
    root = cache_folder() / "torchvision"
    return (
        f"Put its files into {root}, in the layout that torchvision.datasets.{set_name} expects. The "
        f"environment variable {VARIABLE} selects another folder than {root.parent}."
    )


def _download_addresses(kind: type) -> str:
    """A sentence with the download addresses of a set, as far as its class contains them."""
    mirrors, resources = getattr(kind, "mirrors", ()), getattr(kind, "resources", ())
    found = [f"{mirrors[0]}{resource[0]}" for resource in resources if mirrors]
    for each in kind.__mro__:
        found += [] if found else list(_addresses(list(vars(each).values())))
    shown = ", ".join(dict.fromkeys(found[:MOST_ADDRESSES]))
    return f" Download it on another machine: {shown}." if found else ""


def _addresses(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _addresses(each)
    elif isinstance(value, dict):
        yield from _addresses(list(value.values()))


def _read(dataset: Any, prefix: str) -> tuple[Images, npt.NDArray[np.int64]]:
    """The images and targets (-1: no label) of a data set, read without decoding images where possible."""
    pixels = getattr(dataset, "data", None)
    if pixels is not None:
        array = np.asarray(pixels)
        if array.ndim == 4 and array.shape[1] == 3:
            array = array.transpose(0, 2, 3, 1)
        labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        return ArrayImages(np.ascontiguousarray(array), prefix), _targets(labels)
    for attribute in ("samples", "_samples", "imgs"):
        samples = getattr(dataset, attribute, None)
        if samples and isinstance(samples[0][0], str):
            return _files([path for path, _ in samples], [label for _, label in samples])
        if samples and hasattr(samples[0][0], "numpy"):
            array = np.stack([image.numpy() for image, _ in samples])
            return ArrayImages(array, prefix), _targets([label for _, label in samples])
    for attribute in ("_image_files", "_images"):
        if paths := getattr(dataset, attribute, None):
            return _files(paths, dataset._labels)
    labels = dataset.y if hasattr(dataset, "y") else [target for _, target in dataset]
    return TorchvisionImages(dataset, prefix), _targets(labels)


def _files(paths: list[Any], labels: list[Any]) -> tuple[Images, npt.NDArray[np.int64]]:
    """Image files sorted by name, because some of torchvision's lists are in directory order."""
    names = [str(path) for path in paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    return FileImages(names[index] for index in order), _targets(labels)[order]


def _targets(labels: Any) -> npt.NDArray[np.int64]:
    if isinstance(labels, list):
        labels = [-1 if label is None else label for label in labels]
    array = np.asarray(labels).astype(np.int64)
    # QMNIST's labels are rows whose first entry is the digit.
    return array[:, 0] if array.ndim == 2 else array


def _without_empty_classes(
    source_name: str, dataset: Any, splits: dict[str, Split], notes: list[str]
) -> Source:
    """The source without classes that have no images (such as "N/A" of EMNIST letters)."""
    leading = splits["all"] if "all" in splits else splits["train"]
    given = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    largest = max(int(split.targets.max(initial=-1)) for split in splits.values())
    names = _class_names(given) if given else [str(number) for number in range(largest + 1)]
    counts = leading.class_counts(len(names))
    used = np.flatnonzero(counts)
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        notes.append(f"{source_name}: dropped {quoted(empty)}, which has no training images")
    if "train" in splits:
        present = {name: [names[k] for k in np.unique(split.targets)] for name, split in splits.items()}
        notes.extend(check_split_classes(source_name, present))
    place = np.full(len(names), -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    renumbered = {name: Split(split.images, place[split.targets]) for name, split in splits.items()}
    return Source(source_name, tuple(names[k] for k in used), renumbered, tuple(notes))


def _class_names(given: Any) -> list[str]:
    """Unique class names: the first synonym of each class, or all of them if the first is not unique."""
    synonyms = [(each,) if isinstance(each, str) else tuple(map(str, each)) for each in given]
    firsts = [each[0] for each in synonyms]
    names = [each[0] if firsts.count(each[0]) == 1 else ", ".join(each) for each in synonyms]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]


@contextmanager
def _https_only() -> Iterator[None]:
    """Make ``urllib`` use https for every http address, with a time limit.

    torchvision has some plain http addresses and tries http after https has failed.
    """
    before = getattr(urllib.request, "_opener", None)
    timeout = socket.getdefaulttimeout()
    urllib.request.install_opener(urllib.request.build_opener(_Upgrade))
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        urllib.request.install_opener(before)
        socket.setdefaulttimeout(timeout)


class _Upgrade(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        secure = re.sub("^http://", "https://", req.full_url, flags=re.IGNORECASE)
        # Amazon serves a bucket's web site without https, but the bucket itself with https.
        secure = re.sub(r"^(https://[^/]+)\.s3-website[.-]", r"\1.s3.", secure)
        again = urllib.request.Request(secure, headers=dict(req.header_items()), method=req.get_method())
        return self.parent.open(again, timeout=req.timeout)


def _short_message(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
