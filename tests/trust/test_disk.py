"""A full disk and damaged checkpoints: the previous checkpoint is used, or the error is clear."""

import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import (
    CARD,
    MODEL,
    STATE,
    open_checkpoint,
    read_document,
    restore_previous,
    save_checkpoint,
)
from finetune.errors import CheckpointError, RunDirError, SaveError
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import build
from finetune.recipe.load import dump_recipe
from finetune.recipe.schema import Recipe
from finetune.training.run.directory import Description, RunDir
from finetune.training.run.files import METRICS
from finetune.training.trained import load_trained


@contextmanager
def full_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail all changes to the disk from the ``count``-th on. Yields the names of the changes made."""
    made: list[str] = []

    def guarded(name: str, real: Callable[..., Any], harmless: Callable[..., bool] = lambda *_: False) -> Any:
        def change(*words: Any, **options: Any) -> Any:
            if not harmless(*words):
                made.append(name)
                if len(made) > count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*words, **options)

        return change

    def reads(*words: Any) -> bool:
        return len(words) < 2 or words[1].startswith("r")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", guarded("fsync", os.fsync))
        patch.setattr(Path, "rename", guarded("rename", Path.rename))
        patch.setattr(Path, "replace", guarded("replace", Path.replace))
        patch.setattr(Path, "mkdir", guarded("mkdir", Path.mkdir))
        patch.setattr(Path, "open", guarded("open", Path.open, reads))
        patch.setattr(Path, "write_text", guarded("write_text", Path.write_text))
        patch.setattr(safetensors.torch, "save_file", guarded("save_file", safetensors.torch.save_file))
        yield made


def one_epoch(run: RunDir, number: int) -> None:
    run.append(METRICS, {"epoch": number})
    tensors = {MODEL: {"weight": torch.full((4,), float(number))}}
    save_checkpoint(run.checkpoints, "last", tensors, {CARD: {}, STATE: number}, keep_previous=True)
    save_checkpoint(run.checkpoints, "best", tensors, {CARD: {}}, keep_previous=False)


def test_a_disk_that_is_full_at_any_write_loses_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three_epochs(path: Path) -> None:
        with RunDir.open(path, resume=True) as run:
            run.begin(Description(b"given", "resolved", {"threads": 1}, b"split,class"))
            for number in (1, 2, 3):
                one_epoch(run, number)
            run.cut_back(METRICS, 2)

    with full_after(10**9, monkeypatch) as every:
        three_epochs(tmp_path / "whole")
    assert len(every) > 60
    assert {"fsync", "rename", "replace", "write_text", "save_file"} <= set(every)
    for count in range(len(every)):
        path = tmp_path / f"run{count}"
        with (
            full_after(count, monkeypatch) as made,
            pytest.raises((SaveError, RunDirError), match="No space"),
        ):
            three_epochs(path)
        assert len(made) > count
        _goes_on(path)
        shutil.rmtree(path, ignore_errors=True)


def _goes_on(path: Path) -> None:
    """With free space again: the saved files are complete, and the next start resumes from them."""
    with RunDir.open(path, resume=True) as run:
        assert not list(path.rglob(".tmp-*"))
        last = open_checkpoint(run.checkpoints, "last")
        if last is None:
            if not run.begun:
                run.begin(Description(b"given", "resolved", {"threads": 1}, b"split,class"))
            number = 0
        else:
            number = read_document(last / STATE)
            restore_previous(last)
        best = open_checkpoint(run.checkpoints, "best")
        if best is not None:
            weight = safetensors.torch.load_file(best / MODEL)["weight"][0].item()
            assert weight in (number, number - 1)
        run.cut_back(METRICS, number if number < 3 else 2)
        one_epoch(run, 9)
    assert read_document(path / "checkpoints" / "last" / STATE) == 9
    assert not list(path.rglob(".tmp-*"))


@pytest.mark.parametrize("limit", [50, 20_000])
def test_a_file_size_limit_is_reported(
    limit: int, recipe: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    """The kernel refuses in the middle of a write, as on a full disk."""
    words = ("train", recipe(), "--run-dir", tmp_path / "run", "--device", "cpu")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        ended = cli(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended.code == 1
    assert "error:" in ended.err
    assert "File too large" in ended.err
    assert "--resume" in ended.err
    assert not list(tmp_path.rglob(".tmp-*"))
    if limit == 20_000:
        ended = cli(*words, "--resume")
        assert ended.code == 0, ended.err


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of a small network, without its training."""
    recipe = Recipe.model_validate(
        {"data": {"source": "digits"}, "model": {"backbone": "shufflenet_v2_x0_5", "weights": "none"}}
    )
    network = build(recipe.model, 2, seed=0, image_size=32)
    grey = (0.5, 0.5, 0.5)
    card = ModelCard(
        network.architecture, ("a", "b"), Preprocessing(32, 32, "shorter", "bilinear", grey, grey)
    )
    run = tmp_path_factory.mktemp("small") / "run"
    run.mkdir()
    (run / "resolved.yaml").write_text(dump_recipe(recipe))
    tensors, documents = {MODEL: network.module.state_dict()}, {CARD: card.to_dict()}
    save_checkpoint(run / "checkpoints", "best", tensors, documents, keep_previous=False)
    load_trained(run)
    return run


def test_a_damaged_checkpoint_is_never_loaded(small_run: Path) -> None:
    draw = random.Random(0)
    files = sorted((small_run / "checkpoints" / "best").iterdir())
    whole = {path: path.read_bytes() for path in files}
    manifest = json.loads(whole[next(path for path in files if path.name == "manifest.json")])
    for _ in range(500):
        path = draw.choice(files)
        content = bytearray(whole[path])
        how = draw.choice(["flip", "cut", "zeros", "longer"])
        place = (
            draw.randrange(len(content)) if draw.random() < 0.5 else draw.randrange(min(600, len(content)))
        )
        if how == "flip":
            content[place] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del content[place:]
        elif how == "zeros":
            content[place : place + 64] = bytes(len(content[place : place + 64]))
        else:
            content += b"\0"
        path.write_bytes(content)
        try:
            load_trained(small_run)
        except CheckpointError:
            pass
        else:
            unchanged = content == whole[path]
            assert unchanged or (path.name == "manifest.json" and json.loads(content) == manifest)
        finally:
            path.write_bytes(whole[path])
    load_trained(small_run)


def _rewritten(small_run: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """A changed copy with a manifest that agrees with it."""
    run = folder / "run"
    shutil.copytree(small_run, run)
    best = run / "checkpoints" / "best"
    change(best)
    from finetune.checkpoint.manifest import digest

    digests = {path.name: digest(path) for path in best.iterdir() if path.name != "manifest.json"}
    (best / "manifest.json").write_text(json.dumps({"sha256": digests}))
    return run


def _header(length: int) -> Callable[[Path], None]:
    def write(best: Path) -> None:
        (best / MODEL).write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 64)

    return write


def _tensors(**changed: Any) -> Callable[[Path], None]:
    def change(best: Path) -> None:
        tensors = safetensors.torch.load_file(best / MODEL)
        name = next(name for name in tensors if name.endswith("weight"))
        tensors[name] = changed["to"](tensors[name])
        safetensors.torch.save_file(tensors, best / MODEL)

    return change


def _card(**entries: Any) -> Callable[[Path], None]:
    def change(best: Path) -> None:
        card = json.loads((best / CARD).read_text())
        card["architecture"] |= entries
        (best / CARD).write_text(json.dumps(card))

    return change


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("EVIL",)


HOSTILE = {
    "a pickle as weights": lambda best: torch.save({"a": Evil()}, best / MODEL),
    "an endless header": _header(2**62),
    "a header beyond the file": _header(10**6),
    "another type": _tensors(to=torch.Tensor.double),
    "not a number": _tensors(to=lambda value: value * float("nan")),
    "another shape": _tensors(to=lambda value: value[:1].clone()),
    "an unknown network": _card(backbone="os.system"),
    "no network": _card(backbone=None),
    "no head": _card(head={"path": "__class__", "dropout": 0.0}),
    "deep": lambda best: (best / CARD).write_text("[" * 100_000),
    "no object": lambda best: (best / CARD).write_text("3"),
    "binary": lambda best: (best / CARD).write_bytes(b"\xff\xfe\0"),
}


@pytest.mark.parametrize("command", ["eval", "export", "predict"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_checkpoints_are_refused(
    name: str, command: str, small_run: Path, tmp_path: Path, cli: Any, chdir_tmp: Path
) -> None:
    run = _rewritten(small_run, tmp_path / "copy", HOSTILE[name])
    before = sorted(tmp_path.rglob("*"))
    ended = cli(command, run, *(["image.png"] if command == "predict" else []))
    assert ended.code == 2, ended.err
    assert ended.err.strip()
    assert ended.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "manifest",
    [
        '{"sha256": {}}', "{}", "[]", "3", '{"sha256": {"../../resolved.yaml": "0"}}',
        '{"sha256": {"..": "0"}}', '{"sha256": {"/etc/passwd": "0"}}', '{"sha256": 3}', "[" * 100_000, "",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_foreign_manifests_are_refused(manifest: str, small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "checkpoints" / "best" / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        load_trained(run)


def test_a_file_that_the_manifest_does_not_know_is_refused(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "checkpoints" / "best" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not part of the checkpoint"):
        load_trained(run)


@pytest.mark.parametrize("name", ["ENOSPC", "EFBIG", "EDQUOT", "EIO", "EROFS", "EACCES"])
def test_refused_system_calls_are_clear_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = getattr(errno, name)

    def refuse(*_words: Any, **_options: Any) -> None:
        raise OSError(number, os.strerror(number))

    reason = os.strerror(number)
    with RunDir.open(tmp_path / "run") as run:
        run.begin(Description(b"given", "resolved", {"threads": 1}, b"split,class"))
        one_epoch(run, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(SaveError, match=reason):
                run.append(METRICS, {"epoch": 2})
            with pytest.raises(SaveError, match=reason):
                one_epoch_saved(run)
        assert open_checkpoint(run.checkpoints, "last") is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", refuse)
        with pytest.raises((SaveError, RunDirError), match=reason) as raised:
            RunDir.open(tmp_path / "another")
    assert raised.value.exit_code == (2 if name in ("EROFS", "EACCES") else 1)


def one_epoch_saved(run: RunDir) -> None:
    save_checkpoint(run.checkpoints, "last", {MODEL: {}}, {CARD: {}, STATE: 2}, keep_previous=True)
