"""Recognise names of splits by whole words: `Training_Set`, `01-val`, `testImages`.

Parts of words do not count: `contest`, `valley` and `trains` are not splits.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainings", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development"), "val"),
    # Images held out for evaluation count as test, so they serve neither training nor selection.
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout", "eval", "evaluation"), "test"),
}
# Names that need no note.
USUAL_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# Generic words, which add nothing to the name of a split or class.
GENERIC_WORDS = frozenset(
    {"set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "part", "parts", "folder"}
    | {"image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"}
    | {"daten", "bilder"}
    | {"jpg", "jpeg", "jpegs", "png", "files", "samples", "examples", "batch", "session", "dir"}
    | {"the", "my", "our", "all", "for", "final", "new", "raw", "original", "originals", "resized"}
)
# Words in the names of folders whose images have no labels.
UNLABELLED_WORDS = frozenset(
    {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "inference", "submission"}
)
_JOINED = re.compile(r"(held|hold)[\W_]*out", re.IGNORECASE)
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
_BESIDE = "|".join(sorted(GENERIC_WORDS - {"the", "my", "our", "all", "for"}, key=len, reverse=True))
_SPLIT = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
# Compounds: trainset, testimages, imgtrain, isvalid.
_COMPOUND = re.compile(
    f"(?:(?P<split>{_SPLIT})(?P<after>{_BESIDE})|(?P<before>is|{_BESIDE})(?P<last>{_SPLIT}))"
)


@dataclass(frozen=True)
class SplitName:
    """A name that contains a split word.

    Attributes:
        split: train, val or test.
        other_words: the words that are neither split words nor generic.
    """

    split: str
    other_words: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether the name means the split and nothing else."""
        return not self.other_words


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case. Digits are separate words."""
    found: list[str] = []
    for token in _WORD.findall(_JOINED.sub("holdout", unicodedata.normalize("NFKC", name))):
        whole = _divide_compound(token)
        if len(whole) > 1 or whole[0] in SPLIT_WORDS:
            found.extend(whole)
        else:
            found.extend(part for piece in _CAMEL.split(token) for part in _divide_compound(piece))
    return tuple(found)


def parse_split_name(name: str) -> SplitName | None:
    """The split that a folder, column or value is named after; None if there is none or more than one.

    Train and val together count as train, as in `trainval`.
    """
    words = name_words(name)
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if splits == {"train", "val"}:
        splits = {"train"}
    if len(splits) != 1:
        return None
    others = (word for word in words if word not in SPLIT_WORDS and word not in GENERIC_WORDS)
    return SplitName(splits.pop(), tuple(word for word in others if not word.isdigit()))


def split_from_name(name: str) -> str | None:
    """The split that a name means and nothing else: train, val or test; None for other names."""
    found = parse_split_name(name)
    return found.split if found is not None and found.plain else None


def is_generic_name(name: str) -> bool:
    """Whether a folder's name cannot be a class: generic words (`images`, `part 2`) or a date (`2021-06`)."""
    words = name_words(name)
    plain = any(word in GENERIC_WORDS for word in words) and all(
        word in GENERIC_WORDS or word.isdigit() for word in words
    )
    return plain or _DATE.fullmatch(name.strip()) is not None


def is_unlabelled_name(name: str) -> bool:
    """Whether the name means a folder of images without labels."""
    return any(word in UNLABELLED_WORDS for word in name_words(name))


def has_only_words(name: str, words: Collection[str]) -> bool:
    """Whether a name consists of words among ``words`` and of digits."""
    own = name_words(name)
    return any(word in words for word in own) and all(word in words or word.isdigit() for word in own)


def _divide_compound(token: str) -> list[str]:
    """A token in lower case, divided if it is a compound of a split word and a generic word."""
    lower = token.casefold()
    if lower in SPLIT_WORDS or lower in GENERIC_WORDS:
        return [lower]
    compound = _COMPOUND.fullmatch(lower)
    return [part for part in compound.groups() if part] if compound else [lower]
