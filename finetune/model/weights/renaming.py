"""Maps the names of a checkpoint to a network's: strips wrappers, applies rules, and proposes rules."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

# A rule that fits fewer entries than this is likely to fit by chance.
_LEAST_FITTING = 2
_MOST_RULES = 8

# Prefixes that wrappers add to a network's names.
_PREFIXES = (
    "module.", "model.", "backbone.", "ema.", "ema_model.", "_orig_mod.", "net.", "network.",
)  # fmt: skip


def find_prefix(entries: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return the most common prefix that, removed, gives names and shapes of the network; "" for none."""
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


def count_uses(entries: Iterable[str], rules: Mapping[str, str]) -> dict[str, int]:
    """Count the entries that each rule renames."""
    uses = dict.fromkeys(rules, 0)
    for key in entries:
        for rule in apply_rules(key, rules)[1]:
            uses[rule] += 1
    return uses


def apply_rules(key: str, rules: Mapping[str, str]) -> tuple[str, list[str]]:
    """Rename an entry, and return the name and the rules that applied.

    The rules apply to the full name or, if none does, to the name without the prefixes of wrappers.
    """
    for name in strip_wrappers(key):
        applied = []
        for rule, replacement in rules.items():
            if name.startswith(rule):
                name = replacement + name.removeprefix(rule)
                applied.append(rule)
        if applied:
            return name, applied
    return key, []


def strip_wrappers(key: str) -> Iterator[str]:
    """Yield the name, then the rest of it after each known wrapper's prefix, outermost first."""
    while True:
        yield key
        prefix = next((each for each in _PREFIXES if key.startswith(each)), None)
        if prefix is None:
            return
        key = key.removeprefix(prefix)


def propose_rules(spare: Mapping[str, Tensor], missing: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Propose renaming rules, those with the most entries first.

    A rule needs several entries that agree in shape and in the end of their names.

    Args:
        spare: entries of the file that the network does not have.
        missing: entries of the network that the file does not have.
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
    """``a.b.c`` gives ``a.b.c``, ``b.c`` and ``c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]
