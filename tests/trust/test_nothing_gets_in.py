"""Recipes and checkpoints can access no network, run no code and read no other files."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from finetune.model.backbones import create

# Blocks every connection, and records each attempt.
OFFLINE = """
import os, socket, sys

def refuse(name):
    def attempt(*words, **options):
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{name} {words[:2]}\\n")
        raise OSError("no network")
    return attempt

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse(name))
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse(name))
from finetune.cli.start import main

for line in sys.stdin.read().splitlines():
    child = os.fork()
    if not child:
        sys.argv = ["finetune", *line.split("|")]
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        os._exit(code)
    print("CODE", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), line, flush=True)
"""


def test_no_command_uses_the_network(recipe: Callable[..., Path], shapes: Path, tmp_path: Path) -> None:
    run, attempts = tmp_path / "run", tmp_path / "attempts"
    path = recipe()
    commands = [
        f"train|{path}|--run-dir|{run}|--device|cpu",
        f"train|{path}|--run-dir|{run}|--resume|--device|cpu",
        f"eval|{run}|--json",
        f"predict|{run}|{shapes / 'test'}",
        f"export|{run}|--format|safetensors",
        "layers|resnet18",
        "backbones",
        f"recipe|show|{path}",
        f"recipe|validate|{path}",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        env={**os.environ, "ATTEMPTS": str(attempts), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("CODE ")]
    assert [line.split()[1] for line in lines] == ["0"] * len(commands), ended.stderr
    assert not attempts.exists(), attempts.read_text()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("EVIL",)


def weights() -> dict[str, torch.Tensor]:
    return create("resnet18", 1000).state_dict()


def pickled() -> bytes:
    return pickle.dumps({"model": Evil()})


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def climbing() -> bytes:
    """torch's own format, which is a zip file, with a member that would climb out of it."""
    buffer = io.BytesIO(saved({"a": torch.zeros(2)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../../EVIL", b"x")
        archive.writestr("/tmp/EVIL", b"x")
    return buffer.getvalue()


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    tensors = weights()
    tensors["layer1.0.conv1.weight"] = change(tensors["layer1.0.conv1.weight"])
    return safetensors.torch.save(tensors)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "pickle.pth": pickled,
    "pickle in torch's format.pt": lambda: saved({"model": Evil()}),
    "climbing.pt": climbing,
    "endless header.safetensors": lambda: (2**63 - 1).to_bytes(8, "little") + b"{}",
    "header of 100 MB.safetensors": lambda: (10**8 + 1).to_bytes(8, "little") + b"{" + b" " * 50,
    "offsets beyond.safetensors": lambda: (
        (72).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,9999999]}}'.ljust(72)
    ),
    "whole module.pth": lambda: saved(torch.nn.Linear(2, 2)),
    "not a number.safetensors": lambda: changed(lambda value: value * float("nan")),
    "whole numbers.safetensors": lambda: changed(torch.Tensor.long),
    "empty.pth": lambda: b"",
    "text.safetensors": lambda: b"not weights at all",
    "recursive.pth": lambda: b"\x80\x02" + b"(" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_are_refused(
    name: str, recipe: Any, tmp_path: Path, cli: Any, chdir_tmp: Path
) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name]())
    path = recipe()
    before = sorted(tmp_path.rglob("*"))
    words = ("--device", "cpu", "--set", f"model.weights={tmp_path / name}")
    ended = cli("train", path, "--run-dir", tmp_path / "run", *words)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert ended.err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/EVIL").exists()


@pytest.mark.parametrize(
    "text",
    [
        "data: {source: !!python/object/apply:os.mkdir [EVIL]}",
        "data: {source: digits}\nmodel: {backbone: os.system}",
        "data: {source: digits}\nmodel: {backbone: resnet18, head: {init: torch.nn.init.zeros_}}",
        "data: {source: 'torchvision:__class__'}\nmodel: {backbone: resnet18, weights: none}",
        "data: {source: 'torchvision:../x'}\nmodel: {backbone: resnet18, weights: none}",
    ],
)
def test_a_recipe_cannot_name_code(text: str, chdir_tmp: Path, cli: Any) -> None:
    Path("recipe.yaml").write_text(text)
    ended = cli("train", "recipe.yaml", "--device", "cpu")
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in chdir_tmp.rglob("*") if path.is_file()) == ["recipe.yaml"]
