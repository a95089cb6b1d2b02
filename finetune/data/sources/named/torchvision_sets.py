"""torchvision's own classification data sets, by name, with their official splits.

What has arrays or files is read from those, so that images take the same way as everybody's; torchvision
reads the lists.
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

from finetune.data.cache.folder import VARIABLE, cache_folder
from finetune.data.dataset import Source, Split, quoted
from finetune.data.images import ArrayImages, FileImages, Images, TorchvisionImages
from finetune.data.sources.names.class_checks import check_split_classes
from finetune.errors import DataError, printable
from finetune.offline import because, is_offline
from finetune.recipe.catalog import suggest

# Of a recipe's data.source.
TORCHVISION_PREFIX = "torchvision:"
TIMEOUT_SECONDS = 30.0
# So many are named in a message.
MOST_ADDRESSES = 8


@dataclass(frozen=True)
class Official:
    """How one of torchvision's classes is asked for its splits.

    ``splits`` holds the arguments for each split, ``arguments`` those for all. ``variants`` are the values of
    the argument ``variant_argument``, the first the default; a recipe writes ``NAME/VARIANT``. ``fetched`` is
    false where torchvision has no download, or no checksum for it: its files must be put there by hand.
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
    "CIFAR10": Official(_TRAIN_OR_NOT),
    "CIFAR100": Official(_TRAIN_OR_NOT),
    "Caltech101": Official(_UNDIVIDED),
    "Caltech256": Official(_UNDIVIDED),
    "Country211": Official(_by_name(train="train", val="valid", test="test")),
    "DTD": Official(_TRAIN_VAL_TEST),
    "EMNIST": Official(
        _TRAIN_OR_NOT,
        variant_argument="split",
        variants=("balanced", "byclass", "bymerge", "letters", "digits", "mnist"),
    ),
    "EuroSAT": Official(_UNDIVIDED),
    "FER2013": Official(_TRAIN_TEST, fetched=False),
    "FGVCAircraft": Official(
        _TRAIN_VAL_TEST,
        variant_argument="annotation_level",
        variants=("variant", "family", "manufacturer"),
        fetched=False,
    ),
    "FashionMNIST": Official(_TRAIN_OR_NOT),
    "Flowers102": Official(_TRAIN_VAL_TEST),
    "Food101": Official(_TRAIN_TEST),
    "GTSRB": Official(_TRAIN_TEST),
    "Imagenette": Official(
        _by_name(train="train", val="val"), variant_argument="size", variants=("320px", "160px", "full")
    ),
    "KMNIST": Official(_TRAIN_OR_NOT),
    "MNIST": Official(_TRAIN_OR_NOT),
    "OxfordIIITPet": Official(_by_name(train="trainval", test="test")),
    "Places365": Official(_by_name(train="train-standard", val="val"), arguments={"small": True}),
    "QMNIST": Official(_TRAIN_OR_NOT),
    "RenderedSST2": Official(_TRAIN_VAL_TEST),
    "SEMEION": Official(_UNDIVIDED),
    "STL10": Official(_TRAIN_TEST),
    "SUN397": Official(_UNDIVIDED),
    "SVHN": Official(_TRAIN_TEST),
    "StanfordCars": Official(_TRAIN_TEST, fetched=False),
    "USPS": Official(_TRAIN_OR_NOT),
}


def read_torchvision(name: str) -> Source:
    """Read ``NAME`` or ``NAME/VARIANT`` of :data:`SETS`, from ``<cache>/torchvision`` or fetched to there.

    Downloads are torchvision's, with its checksums, over https only. EMNIST's images lie on their side, as
    torchvision gives them.

    Raises:
        DataError: no such set or variant, or its files are not there and cannot be fetched.
    """
    set_name, _, variant = name.partition("/")
    source_name = f"{TORCHVISION_PREFIX}{printable(name)}"
    if set_name not in SETS:
        raise DataError(f"{source_name}: no such set.{suggest(set_name, SETS)} There are: {', '.join(SETS)}.")
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
            notes.append(f"{source_name}: {split} comes without labels and was left out")
            continue
        splits[split] = Split(images, targets)
    return _named(source_name, next(iter(datasets.values())), splits, notes)


def _load(source_name: str, set_name: str, arguments: dict[str, Any], fetched: bool) -> Any:
    """The data set from the disk, or else fetched."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, set_name)
    root = cache_folder() / "torchvision"
    try:
        return kind(str(root), **arguments)
    except Exception as error:
        # Whatever it is, the files are not there, or not as they should be.
        reason = _short(error)
    if fetched and is_offline():
        raise DataError(
            f"{source_name}: not found, and {because()}.{_from_where(kind)}\n{_where_to(set_name)}"
        )
    if fetched:
        try:
            with _https_only():
                return kind(str(root), download=True, **arguments)
        except Exception as error:
            reason = _short(error)
    how = "torchvision could not fetch it" if fetched else "it must be put there by hand"
    raise DataError(f"{source_name}: not found, and {how}: {reason}\n{_where_to(set_name)}")


def _where_to(set_name: str) -> str:
    root = cache_folder() / "torchvision"
    return (
        f"Its files belong into {root}, laid out as torchvision.datasets.{set_name} expects them; "
        f"the environment variable {VARIABLE} names another folder than {root.parent}."
    )


def _from_where(kind: type) -> str:
    """Where torchvision would fetch the files of a set, as far as its class says."""
    mirrors, resources = getattr(kind, "mirrors", ()), getattr(kind, "resources", ())
    found = [f"{mirrors[0]}{resource[0]}" for resource in resources if mirrors]
    for each in kind.__mro__:
        found += [] if found else list(_addresses(list(vars(each).values())))
    shown = ", ".join(dict.fromkeys(found[:MOST_ADDRESSES]))
    return f" Fetch it elsewhere: {shown}." if found else ""


def _addresses(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _addresses(each)
    elif isinstance(value, dict):
        yield from _addresses(list(value.values()))


def _read(dataset: Any, prefix: str) -> tuple[Images, npt.NDArray[np.int64]]:
    """A data set's images and targets (-1: none), without decoding an image to get at its target."""
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
    """Sorted by name: some of torchvision's lists are in the order of the disk."""
    names = [str(path) for path in paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    return FileImages(names[index] for index in order), _targets(labels)[order]


def _targets(labels: Any) -> npt.NDArray[np.int64]:
    if isinstance(labels, list):
        labels = [-1 if label is None else label for label in labels]
    array = np.asarray(labels).astype(np.int64)
    # QMNIST's labels are rows, of which the first entry is the digit.
    return array[:, 0] if array.ndim == 2 else array


def _named(source_name: str, dataset: Any, splits: dict[str, Split], notes: list[str]) -> Source:
    """Classes without an image (EMNIST letters' "N/A") are dropped, and the targets renumbered."""
    leading = splits["all"] if "all" in splits else splits["train"]
    given = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    largest = max(int(split.targets.max(initial=-1)) for split in splits.values())
    names = _class_names(given) if given else [str(number) for number in range(largest + 1)]
    counts = leading.class_counts(len(names))
    kept = np.flatnonzero(counts)
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        notes.append(f"{source_name}: {quoted(empty)} has no images to train on, and is no class here")
    if "train" in splits:
        present = {name: [names[k] for k in np.unique(split.targets)] for name, split in splits.items()}
        notes.extend(check_split_classes(source_name, present))
    place = np.full(len(names), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    renumbered = {name: Split(split.images, place[split.targets]) for name, split in splits.items()}
    return Source(source_name, tuple(names[k] for k in kept), renumbered, tuple(notes))


def _class_names(given: Any) -> list[str]:
    """Strings, all different. Of several synonyms the first, where no other class has it too."""
    synonyms = [(each,) if isinstance(each, str) else tuple(map(str, each)) for each in given]
    firsts = [each[0] for each in synonyms]
    names = [each[0] if firsts.count(each[0]) == 1 else ", ".join(each) for each in synonyms]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]


@contextmanager
def _https_only() -> Iterator[None]:
    """Within, ``urllib`` uses https for every http address, and does not wait for ever.

    torchvision has some addresses in plain http, and tries http after https has failed.
    """
    before = getattr(urllib.request, "_opener", None)
    patience = socket.getdefaulttimeout()
    urllib.request.install_opener(urllib.request.build_opener(_Upgrade))
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        urllib.request.install_opener(before)
        socket.setdefaulttimeout(patience)


class _Upgrade(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        secure = re.sub("^http://", "https://", req.full_url, flags=re.IGNORECASE)
        # Amazon serves web sites from its buckets without https, and the bucket itself with it.
        secure = re.sub(r"^(https://[^/]+)\.s3-website[.-]", r"\1.s3.", secure)
        again = urllib.request.Request(secure, headers=dict(req.header_items()), method=req.get_method())
        return self.parent.open(again, timeout=req.timeout)


def _short(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
