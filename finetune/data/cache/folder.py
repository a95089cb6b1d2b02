"""The folder of the cache."""

import os
from pathlib import Path

VARIABLE = "FINETUNE_CACHE"


def cache_folder() -> Path:
    """``$FINETUNE_CACHE``, else ``$XDG_CACHE_HOME/finetune``, else ``~/.cache/finetune``.

    The folder need not exist.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "finetune"
    return Path.home() / ".cache" / "finetune"
