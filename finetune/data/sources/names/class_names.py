"""Names of classes that are one name, written in two ways; for folders and tables alike."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import combinations

# A class this much rarer than one that looks like it is taken for a misspelling of that, at fewer letters.
RARE = 10
# Shorter words that differ in one letter are mostly two words.
LETTERS_TO_MISPLACE, LETTERS_TO_MISTAKE = 5, 8
# So many images make a class of a name; one or two may be a slip.
FREQUENT = 20
# Where more names than these are one letter apart, it is a numbering.
NEIGHBOURS = 12


def is_class_name(name: str) -> bool:
    """Whether a class can be called so: something to see, on one line, that UTF-8 can write."""
    unfit = {"Cc", "Cs", "Zl", "Zp"}
    return bool(name.strip()) and not any(unicodedata.category(char) in unfit for char in name)


def folded(name: str) -> str:
    """What is left of a name without case, outer and repeated spaces, Unicode form and invisible marks."""
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(char for char in composed if unicodedata.category(char) != "Cf").split())


def equivalent_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (later, first) of names that differ in case, spaces or Unicode form only, in the given order."""
    first: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        other = first.setdefault(folded(name), name)
        if other != name:
            pairs[name, other] = None
    return list(pairs)


def similar_names(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Pairs of class names that may be one class, with how they differ: a plural, separators, accents, a
    letter. ``counts`` is class -> images. Names that :func:`equivalent_names` pairs are not among them.

    Names that differ in numbers are two classes.
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
    return [(one, other, how) for (one, other), how in found.items() if folded(one) != folded(other)]


def _near(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that are the same once a letter is taken out of each, or of one; in time that grows
    with the names and not with their pairs.
    """
    without: dict[str, list[str]] = {}
    for name in names:
        bare = _bare(name)
        for key in {bare, *(bare[:place] + bare[place + 1 :] for place in range(len(bare)))}:
            without.setdefault(key, []).append(name)
    pairs = {pair: None for group in without.values() for pair in combinations(group[:NEIGHBOURS], 2)}
    return iter(pairs)


def _bare(name: str) -> str:
    """Without what stands between words."""
    return re.sub(r"[\W_]+", "", folded(name))


def _plain(name: str) -> str:
    """Without accents."""
    parts = unicodedata.normalize("NFD", folded(name))
    return "".join(char for char in parts if not unicodedata.combining(char))


def _stem(name: str) -> str:
    """The last word in the singular, as far as its letters tell."""
    bare = _bare(name)
    if len(bare) < 4 or bare.endswith(("ss", "us", "is")):
        return bare
    if bare.endswith("ies"):
        return bare[:-3] + "y"
    if bare.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return bare[:-2]
    return bare.removesuffix("s")


KEYS = (("in separators only", _bare), ("in accents only", _plain), ("as singular and plural do", _stem))


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _misspelt(one: str, other: str, counts: Mapping[str, int]) -> bool:
    first, second = _bare(one), _bare(other)
    if abs(len(first) - len(second)) > 1 or _numbers(first) != _numbers(second):
        return False
    fewer, more = sorted((counts[one], counts[other]))
    rare = fewer * RARE <= more
    letters = min(len(first), len(second))
    if first == second or letters < (4 if rare else LETTERS_TO_MISPLACE):
        return False
    if len(first) == len(second):
        differing = [place for place in range(letters) if first[place] != second[place]]
        if len(differing) == 1:
            return letters >= (LETTERS_TO_MISPLACE if rare else LETTERS_TO_MISTAKE)
        return (
            len(differing) == 2
            and differing[1] == differing[0] + 1
            and (first[differing[0]] == second[differing[1]] and first[differing[1]] == second[differing[0]])
        )
    shorter, longer = sorted((first, second), key=len)
    # A letter left out, within the word: at its ends it mostly makes another.
    return any(shorter == longer[:place] + longer[place + 1 :] for place in range(1, len(longer) - 1))
