"""Class names: which are valid, equivalent, similar, or missing from a split."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations

from finetune.data.dataset import NAMES_SHOWN, quoted
from finetune.disk.nearby import distance
from finetune.errors import DataError
from finetune.recipe.catalog import suggest

# A class this many times rarer than a similar one may be a misspelling even if its name is short.
RARE = 10
# Shorter words that differ in one letter are usually different words.
LETTERS_TO_MISPLACE, LETTERS_TO_MISTAKE = 5, 8
# A name with this many images is a class; a name with one or two may be a typing error.
FREQUENT = 20
# If more names than this differ in one letter, they are numbered.
NEIGHBOURS = 12


def is_class_name(name: str) -> bool:
    """Whether ``name`` can be a class name: visible, on one line and valid Unicode."""
    unfit = {"Cc", "Cs", "Zl", "Zp"}
    return bool(name.strip()) and not any(unicodedata.category(char) in unfit for char in name)


def normalized(name: str) -> str:
    """``name`` without differences in case, outer and repeated spaces, Unicode form and invisible marks."""
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(char for char in composed if unicodedata.category(char) != "Cf").split())


def equivalent_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (later, first) of names that differ only in case, spaces or Unicode form."""
    first: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        other = first.setdefault(normalized(name), name)
        if other != name:
            pairs[name, other] = None
    return list(pairs)


def similar_names(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Pairs of class names that may mean the same class, with the difference: plural, accents, a letter, ...

    Names that differ in numbers are different classes. Pairs that :func:`equivalent_names` finds are not
    included.

    Args:
        counts: class name -> number of images.
    """
    found: dict[tuple[str, str], str] = {}
    for how, key in KEYS:
        groups: dict[str, list[str]] = {}
        for name in counts:
            groups.setdefault(key(name), []).append(name)
        for key_, group in groups.items():
            for other in group[1:] if key_ else ():
                found.setdefault((group[0], other), how)
    for one, other in _near(counts):
        if (one, other) not in found and (other, one) not in found and _misspelt(one, other, counts):
            found[one, other] = "in a letter only"
    frequent = [name for name, count in counts.items() if count >= FREQUENT]
    for name in [name for name, count in counts.items() if count <= 2][:NEIGHBOURS]:
        for other in get_close_matches(name, frequent, n=1, cutoff=0.8):
            if _numbers(name) == _numbers(other) and not {(name, other), (other, name)} & set(found):
                found[name, other] = "in a few letters"
    return [(one, other, how) for (one, other), how in found.items() if normalized(one) != normalized(other)]


def similar_class_notes(name: str, counts: Mapping[str, int]) -> list[str]:
    """Notes on pairs of classes that may be one class with a misspelt name; ``counts`` is class -> images."""
    pairs = similar_names(counts)
    notes = [
        f"{name}: the class names '{one}' ({counts[one]}) and '{other}' ({counts[other]}) differ "
        f"{how}; if they are one class, use one name"
        for one, other, how in pairs[:NAMES_SHOWN]
    ]
    if len(pairs) > NAMES_SHOWN:
        notes.append(f"{name}: {len(pairs) - NAMES_SHOWN} more pairs of classes have similar names")
    return notes


def check_split_classes(name: str, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Check that train has all classes; return notes on classes that val or test lacks.

    Args:
        classes: split -> class names.

    Raises:
        DataError: val or test has a class that train lacks.
    """
    notes = []
    for split in ("val", "test"):
        if split not in classes:
            continue
        trained, present = set(classes["train"]), set(classes[split])
        if unknown := sorted(present - trained):
            hints = "".join(dict.fromkeys(suggest(each, trained) for each in unknown[:3]))
            raise DataError(
                f"{name}: {split} has classes that train lacks, so they cannot be learned.{hints}\n"
                f"  only in {split}: {quoted(unknown)}\n"
                f"  in train: {quoted(sorted(trained))}\n"
                "Class names must match exactly. Rename the classes or remove their images."
            )
        if absent := sorted(trained - present):
            notes.append(f"{split} has no images of {quoted(absent)}, so it does not measure those classes")
    return notes


def _near(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Pairs of names that become equal if at most one letter is removed from each.

    The time grows with the number of names, not with the number of pairs.
    """
    without: dict[str, list[str]] = {}
    for name in names:
        compact = _without_separators(name)
        for key in {compact, *(compact[:place] + compact[place + 1 :] for place in range(len(compact)))}:
            without.setdefault(key, []).append(name)
    return {pair: None for group in without.values() for pair in combinations(group[:NEIGHBOURS], 2)}


def _without_separators(name: str) -> str:
    """``name`` without separators between words."""
    return re.sub(r"[\W_]+", "", normalized(name))


def _without_accents(name: str) -> str:
    """``name`` without accents."""
    parts = unicodedata.normalize("NFD", normalized(name))
    return "".join(char for char in parts if not unicodedata.combining(char))


def _singular(name: str) -> str:
    """``name`` with its last word in the singular, by simple spelling rules."""
    compact = _without_separators(name)
    if len(compact) < 4 or compact.endswith(("ss", "us", "is")):
        return compact
    if compact.endswith("ies"):
        return compact[:-3] + "y"
    if compact.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return compact[:-2]
    return compact.removesuffix("s")


KEYS = (
    ("in separators only", _without_separators),
    ("in accents only", _without_accents),
    ("in singular and plural only", _singular),
)


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _misspelt(one: str, other: str, counts: Mapping[str, int]) -> bool:
    first, second = _without_separators(one), _without_separators(other)
    fewer, more = sorted((counts[one], counts[other]))
    rare = fewer * RARE <= more
    letters = min(len(first), len(second))
    if letters < (4 if rare else LETTERS_TO_MISPLACE) or _numbers(first) != _numbers(second):
        return False
    if distance(first, second) != 1:
        return False
    if len(first) != len(second):
        # A letter is missing inside the word. Without a letter at its end, it is usually another word.
        return first[0] == second[0] and first[-1] == second[-1]
    swapped = sorted(first) == sorted(second)
    return swapped or letters >= (LETTERS_TO_MISPLACE if rare else LETTERS_TO_MISTAKE)
