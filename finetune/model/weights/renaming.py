"""Names of a checkpoint and names of a network: wrappers undone, the user's rules applied, rules proposed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

# A rule that fits fewer entries than this is more likely chance than a name of the same thing.
_LEAST_FITTING = 2
_MOST_RULES = 8

# Prefixes that wrappers put before a network's own names.
_PREFIXES = (
    "module.", "model.", "backbone.", "ema.", "ema_model.", "_orig_mod.", "net.", "network.",
)  # fmt: skip


def wrapping(entries: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What stands before the network's own names where no known wrapper does; the commonest such prefix."""
    found: Counter[str] = Counter()
    for key, tensor in entries.items():
        start = key.find(".") + 1
        while start:
            name = key[start:]
            if name in own and own[name].shape == tensor.shape:
                found[key[:start]] += 1
                break
            start = key.find(".", start) + 1
    return found.most_common(1)[0][0] if found else ""


def uses(entries: Iterable[str], rules: Mapping[str, str]) -> dict[str, int]:
    """How many entries each rule renames."""
    uses = dict.fromkeys(rules, 0)
    for key in entries:
        for rule in renamed(key, rules)[1]:
            uses[rule] += 1
    return uses


def renamed(key: str, rules: Mapping[str, str]) -> tuple[str, list[str]]:
    """A name after the rules, and the rules that applied; behind a wrapper's prefix if need be."""
    for name in behind_wrappers(key):
        applied = []
        for rule, replacement in rules.items():
            if name.startswith(rule):
                name = replacement + name.removeprefix(rule)
                applied.append(rule)
        if applied:
            return name, applied
    return key, []


def behind_wrappers(key: str) -> Iterator[str]:
    """The name, and what is left of it behind each known wrapper's prefix, from the outside inwards."""
    while True:
        yield key
        prefix = next((each for each in _PREFIXES if key.startswith(each)), None)
        if prefix is None:
            return
        key = key.removeprefix(prefix)


def proposed(spare: Mapping[str, Tensor], missing: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Rules that would bring entries the network has no use for to entries it lacks; the widest first.

    A rule is proposed where several entries agree in shape and in the end of their names.
    """
    by_end: dict[str, list[str]] = {}
    for name in missing:
        for end in _ends(name):
            by_end.setdefault(end, []).append(name)
    rules: list[tuple[str, str]] = []
    left = dict(spare)
    while left and len(rules) < _MOST_RULES:
        fits: Counter[tuple[str, str]] = Counter()
        for key, tensor in left.items():
            for end in _ends(key):
                for name in by_end.get(end, ()):
                    if missing[name].shape == tensor.shape:
                        fits[key.removesuffix(end), name.removesuffix(end)] += 1
        (rule, count), *_ = fits.most_common(1) or [(("", ""), 0)]
        if count < _LEAST_FITTING:
            break
        rules.append(rule)
        left = {key: tensor for key, tensor in left.items() if not key.startswith(rule[0])}
    return rules


def _ends(name: str) -> list[str]:
    """``a.b.c``, ``b.c`` and ``c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]
