"""Keys: what every random draw in the data path is seeded with.

A draw depends on what it is for (seed, epoch, image, ...) and on nothing that happened before it, so that
neither the number of workers nor a resume changes it.
"""

import hashlib
import operator


def key(seed: int, *parts: int | str) -> int:
    """A 64-bit non-negative number that depends on ``seed`` and ``parts`` alone, everywhere and always.

    Different parts give unrelated keys: ``1`` and ``"1"`` differ, ``("ab", "c")`` and ``("a", "bc")`` too.
    BLAKE2b (RFC 7693) over an encoding in which every part carries its type and length.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(b"s%d:" % len(data) + data)
        else:
            digest.update(b"i%d;" % operator.index(part))
    return int.from_bytes(digest.digest(), "little")
