"""Whether downloads are allowed: ``finetune --offline``, or the environment variable FINETUNE_OFFLINE.

This covers weights, known data sets, torchvision's data sets and timm's hub, here and in child processes.
"""

import os

VARIABLE = "FINETUNE_OFFLINE"
# Makes Hugging Face's client, which timm uses, read only its cache.
HUB_VARIABLE = "HF_HUB_OFFLINE"
# The end of messages about files that were not downloaded.
NOT_FETCHED = f"not fetched, since --offline or {VARIABLE} forbids downloads"
_NO = frozenset({"", "0", "no", "off", "false"})


def forbid_downloads() -> None:
    """Forbid downloads from now on, in this process and its child processes."""
    os.environ[VARIABLE] = os.environ[HUB_VARIABLE] = "1"


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _NO
