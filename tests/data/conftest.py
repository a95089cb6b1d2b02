from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes small images below a folder ``data``, each in a different colour; returns the folder."""
    root = tmp_path / "data"
    root.mkdir()
    written = 0

    def write(*names: str, size: tuple[int, int] = (10, 8)) -> Path:
        nonlocal written
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            written += 1
            Image.new("RGB", size, (written % 256, (written * 7) % 256, 100)).save(path)
        return root

    return write
