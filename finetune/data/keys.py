"""Keys: the seeds of all random draws in the data path.

A key depends on the purpose of the draw (seed, epoch, image, ...) and on nothing that happened before. So
neither the number of workers nor a resume changes a draw.
"""

import hashlib
import operator


def key(seed: int, *parts: int | str) -> int:
    """A 64-bit non-negative number that depends on ``seed`` and ``parts`` alone, on every machine.

    Different parts give unrelated keys: ``1`` and ``"1"`` differ, as do ``("ab", "c")`` and ``("a", "bc")``.
    The key is a BLAKE2b hash (RFC 7693) of an encoding that states the type and length of every part.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(b"s%d:" % len(data) + data)
        else:
            digest.update(b"i%d;" % operator.index(part))
    return int.from_bytes(digest.digest(), "little")
