"""What a name says of train, val and test, by the whole words in it: `Training_Set`, `01-val`, `testImages`.

A word within a word says nothing: `contest`, `valley` and `trains` are no splits.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainings", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development"), "val"),
    # What is held out to evaluate on is never trained on, and never chosen by, if it counts as test.
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout", "eval", "evaluation"), "test"),
}
# The names that need no remark.
USUAL_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# Words that say nothing beside the name of a split or a class.
PLAIN_WORDS = frozenset(
    {"set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "part", "parts", "folder"}
    | {"image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"}
    | {"daten", "bilder"}
    | {"jpg", "jpeg", "jpegs", "png", "files", "samples", "examples", "batch", "session", "dir"}
    | {"the", "my", "our", "all", "for", "final", "new", "raw", "original", "originals", "resized"}
)
# Images that wait for a prediction have no labels.
UNLABELLED_WORDS = frozenset(
    {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "inference", "submission"}
)
_JOINED = re.compile(r"(held|hold)[\W_]*out", re.IGNORECASE)
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
_BESIDE = "|".join(sorted(PLAIN_WORDS - {"the", "my", "our", "all", "for"}, key=len, reverse=True))
_SPLIT = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
# Written together: trainset, testimages, imgtrain, isvalid.
_COMPOUND = re.compile(
    f"(?:(?P<split>{_SPLIT})(?P<after>{_BESIDE})|(?P<before>is|{_BESIDE})(?P<last>{_SPLIT}))"
)


@dataclass(frozen=True)
class SplitName:
    """A name with a split's word in it: the ``split`` (train, val or test), and the words that say more."""

    split: str
    rest: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether the name says the split and nothing else."""
        return not self.rest


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case; digits are words of their own."""
    found: list[str] = []
    for token in _WORD.findall(_JOINED.sub("holdout", unicodedata.normalize("NFKC", name))):
        whole = _parted(token)
        if len(whole) > 1 or whole[0] in SPLIT_WORDS:
            found.extend(whole)
        else:
            found.extend(part for piece in _CAMEL.split(token) for part in _parted(piece))
    return tuple(found)


def parse_split_name(name: str) -> SplitName | None:
    """The split that a folder, column or value is named after; None where no word, or two, say one.

    Train and val together are train, as `trainval` is.
    """
    words = name_words(name)
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if splits == {"train", "val"}:
        splits = {"train"}
    if len(splits) != 1:
        return None
    said = (word for word in words if word not in SPLIT_WORDS and word not in PLAIN_WORDS)
    return SplitName(splits.pop(), tuple(word for word in said if not word.isdigit()))


def split_from_name(name: str) -> str | None:
    """The split that a name says and nothing else: train, val, test or None."""
    found = parse_split_name(name)
    return found.split if found is not None and found.plain else None


def is_generic_name(name: str) -> bool:
    """Whether a folder's name tells no class: plain words (`images`, `part 2`), or a date (`2021-06`)."""
    words = name_words(name)
    plain = any(word in PLAIN_WORDS for word in words) and all(
        word in PLAIN_WORDS or word.isdigit() for word in words
    )
    return plain or _DATE.fullmatch(name.strip()) is not None


def is_unlabelled_name(name: str) -> bool:
    """Whether a folder is named after images that have no labels."""
    return any(word in UNLABELLED_WORDS for word in name_words(name))


def has_only_words(name: str, words: Collection[str]) -> bool:
    """Whether a name consists of some of ``words``, and of digits."""
    own = name_words(name)
    return any(word in words for word in own) and all(word in words or word.isdigit() for word in own)


def _parted(token: str) -> list[str]:
    """A token in lower case; where it is a split's word and a plain one written together, the two."""
    lower = token.casefold()
    if lower in SPLIT_WORDS or lower in PLAIN_WORDS:
        return [lower]
    compound = _COMPOUND.fullmatch(lower)
    return [part for part in compound.groups() if part] if compound else [lower]
