"""Whether anything may be downloaded: ``finetune --offline``, or the environment variable.

What is told here holds for weights, known data sets, torchvision's data sets and timm's hub alike, and for
the processes that this one starts.
"""

import os

VARIABLE = "FINETUNE_OFFLINE"
# Of Hugging Face's client, through which timm fetches: it then reads its cache alone.
OF_THE_HUB = "HF_HUB_OFFLINE"
_NO = frozenset({"", "0", "no", "off", "false"})


def forbid() -> None:
    """From here on nothing is downloaded, in this process and in those that it starts."""
    os.environ[VARIABLE] = os.environ[OF_THE_HUB] = "1"


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _NO


def because() -> str:
    """The end of a sentence that says why something was not fetched."""
    return f"not fetched, since --offline or {VARIABLE} forbids downloads"
