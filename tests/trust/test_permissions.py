"""Missing permissions and refused system calls: one clear message."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.cli import main
from finetune.data.cache import contents
from finetune.data.dataset import Split
from finetune.data.sources.folders.read import read_folder
from finetune.data.sources.header_checks import sample_files
from finetune.errors import FinetuneError, UserError


def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a folder of another user: its content may not be read. (Root may read everything.)"""
    real_stat, real_scan, real_list = os.stat, os.scandir, os.listdir

    def guarded(real: Any, inside_only: bool) -> Any:
        def checked(path: Any = ".", *words: Any, **options: Any) -> Any:
            if not isinstance(path, int):
                whole = Path(os.fsdecode(path)).absolute()
                if folder in whole.parents or (whole == folder and not inside_only):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *words, **options)

        return checked

    monkeypatch.setattr(os, "stat", guarded(real_stat, True))
    monkeypatch.setattr(os, "scandir", guarded(real_scan, False))
    monkeypatch.setattr(os, "listdir", guarded(real_list, False))


@pytest.mark.parametrize("at", ["root", "set"])
def test_a_cache_of_another_user_is_reported(at: str, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = contents.features_folder() / "abc"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text("{}")
    with monkeypatch.context() as patch:
        closed(folder if at == "set" else contents.features_folder(), patch)
        info = cli("cache", "info")
        assert info.code == 0, info.err
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        contents.make_room(1, 0)
        ended = cli("cache", "clear")
    assert ended.code == 0
    assert "0.0 MB freed" in ended.out
    assert "features: some of it could not be removed" in ended.err
    assert (folder / "about.json").exists()


def test_images_in_a_folder_that_may_not_be_entered(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train: Split = read_folder(shapes).splits["train"]
    monkeypatch.setattr(os, "stat", os.stat)
    closed(shapes / "train" / "disc", monkeypatch)
    files = sample_files(train)
    assert {path.parent.name for path in files} == {"square"}
    assert len(files) == np.count_nonzero(train.targets == 1)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), UserError, "runs/x: this user has no"),
        (PermissionError(errno.EPERM, "Operation not permitted", b"a\n"), UserError, r"a\n: this user"),
        (RuntimeError("can't start new thread"), FinetuneError, "no more processes or threads"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), FinetuneError, "ulimit -u"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), FinetuneError, "out of memory"),
    ],
)
def test_refused_permissions_are_clear_messages(
    error: Exception, kind: type[FinetuneError], said: str
) -> None:
    found = main._expected(error)
    assert found is not None
    assert found.exit_code == kind.exit_code
    assert said in str(found)
    assert "Traceback" not in str(found)
