"""Whether downloads are allowed: ``finetune --offline``, or the environment variable FINETUNE_OFFLINE.

This covers weights, known data sets, torchvision's data sets and timm's hub, here and in child processes.
"""

import os

VARIABLE = "FINETUNE_OFFLINE"
# For Hugging Face's client, which timm uses: with this it reads only its cache.
OF_THE_HUB = "HF_HUB_OFFLINE"
_NO = frozenset({"", "0", "no", "off", "false"})


def forbid() -> None:
    """Forbid downloads from now on, in this process and its child processes."""
    os.environ[VARIABLE] = os.environ[OF_THE_HUB] = "1"


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _NO


def because() -> str:
    """The end of a message about something that was not downloaded."""
    return f"not fetched, since --offline or {VARIABLE} forbids downloads"
