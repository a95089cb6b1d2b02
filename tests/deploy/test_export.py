"""Exported files are complete and agree with the network; a failed export leaves no files."""

import copy
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors
import torch
from torch import nn

from finetune.checkpoint.card import CARD_KEY, ModelCard
from finetune.deploy import onnx_format
from finetune.deploy.export import FORMATS, export
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.deploy.pt2_format import open_pt2
from finetune.deploy.safetensors_format import open_safetensors
from finetune.errors import ExportError, MissingExtraError, SaveError, UserError
from finetune.training.trained import Trained


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def mentions(file: Path, text: bytes) -> bool:
    return text in file.read_bytes()


def logits_of(trained: Trained, n: int) -> tuple[np.ndarray, np.ndarray]:
    images = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))
    with torch.inference_mode():
        return images.numpy(), trained.module(images).numpy()


def test_an_onnx_file_is_complete_and_has_no_path_of_this_machine(onnx_model: Path, trained: Trained) -> None:
    assert files_below(onnx_model.parent) == ["model.onnx"]
    model = onnx.load(onnx_model)
    onnx.checker.check_model(model)
    assert [entry.name for entry in model.graph.input] == ["images"]
    assert [entry.name for entry in model.graph.output] == ["logits", "probabilities", "novelty"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        CARD_KEY: trained.card.to_dict()
    }
    assert mentions(onnx_model, b"images")  # the control
    assert not mentions(onnx_model, os.fsencode(Path(torch.__file__).parent))
    assert not mentions(onnx_model, b"stack_trace")


def fits(model: onnx.ModelProto, opset: int, ir_version: int) -> bool:
    """Whether a runtime for this operator set and IR version can read the model."""
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    newest = max(onnx.defs.get_schema(node.op_type, opset).since_version for node in model.graph.node)
    return model.ir_version == ir_version and newest <= opset and not model.functions


def test_an_onnx_file_is_for_old_runtimes(onnx_model: Path) -> None:
    """Operator set 18 and IR version 8: onnxruntime 1.14, of February 2023."""
    assert fits(onnx.load(onnx_model), 18, 8)


@pytest.mark.parametrize(("opset", "ir_version"), [(21, 10)])
def test_another_operator_set(
    opset: int, ir_version: int, cli: Callable[..., Any], trained: Trained, tmp_path: Path
) -> None:
    target = tmp_path / "model.onnx"
    ended = cli("export", trained.run, "--out", target, "--opset", opset)
    assert ended.code == 0, ended.err
    assert fits(onnx.load(target), opset, ir_version)
    images, expected = logits_of(trained, 3)
    np.testing.assert_allclose(OnnxClassifier(target).outputs(images).logits, expected, rtol=1e-3, atol=1e-4)


def test_an_operator_set_that_torch_cannot_write(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch only warns, and writes another one."""
    written = SimpleNamespace(model=SimpleNamespace(opset_imports={"": 18}))
    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **options: written)
    with pytest.raises(ExportError, match="only as operator set 18"):
        export(trained, "onnx", tmp_path / "model.onnx", opset=21)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_onnx_takes_any_batch(onnx_model: Path, trained: Trained, batch: int) -> None:
    images, expected = logits_of(trained, batch)
    np.testing.assert_allclose(OnnxClassifier(onnx_model).outputs(images).logits, expected, atol=1e-4)


def test_pt2(trained: Trained, tmp_path: Path) -> None:
    exported = export(trained, "pt2", tmp_path / "model.pt2")
    assert files_below(tmp_path) == ["model.pt2"]
    assert exported.files == (tmp_path / "model.pt2",)
    again = open_pt2(tmp_path / "model.pt2")
    assert again.card == trained.card
    for batch in (1, 5):
        images, expected = logits_of(trained, batch)
        np.testing.assert_allclose(again.outputs(images).logits, expected, atol=1e-5)
    assert not mentions(tmp_path / "model.pt2", os.fsencode(Path(torch.__file__).parent))


def test_safetensors(trained: Trained, tmp_path: Path) -> None:
    target = tmp_path / "weights.safetensors"
    first = export(trained, "safetensors", target)
    content = target.read_bytes()
    assert first.files == (target, tmp_path / "config.json", tmp_path / "novelty.safetensors")
    assert first.agreement.difference == 0
    assert files_below(tmp_path) == ["config.json", "novelty.safetensors", "weights.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert ModelCard.from_dict(config, "config.json") == trained.card
    assert target.stat().st_mode == (tmp_path / "config.json").stat().st_mode
    with safetensors.safe_open(target, framework="np") as file:
        assert set(file.keys()) == set(trained.module.state_dict())
    images, expected = logits_of(trained, 2)
    assert np.array_equal(open_safetensors(target).outputs(images).logits, expected)
    # An export contains no time, so a second one writes the same bytes.
    export(trained, "safetensors", target)
    assert target.read_bytes() == content


def test_an_unrelated_config_is_not_replaced(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "my web site"}')
    with pytest.raises(UserError, match="does not describe a model"):
        export(trained, "safetensors", tmp_path / "model.safetensors")
    assert files_below(tmp_path) == ["config.json"]


def test_large_weights_go_to_a_file_beside_the_model(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_format, "SINGLE_FILE_BYTES", 1_000_000)
    target = tmp_path / "big.onnx"
    exported = export(trained, "onnx", target)
    assert exported.files == (target, tmp_path / "big.onnx.data")
    assert files_below(tmp_path) == ["big.onnx", "big.onnx.data"]
    assert target.stat().st_size < 1_000_000
    images, expected = logits_of(trained, 3)
    np.testing.assert_allclose(OnnxClassifier(target).outputs(images).logits, expected, atol=1e-4)


@pytest.mark.parametrize("format", ["pt2", "safetensors"])
def test_a_file_that_disagrees_is_not_published(
    format: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FORMATS[format].write

    def write_another(module: nn.Module, card: ModelCard, path: Path, reference: Any) -> None:
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.01)
        write(other, card, path, reference)

    monkeypatch.setitem(FORMATS, format, dataclasses.replace(FORMATS[format], write=write_another))
    before = tmp_path / "old" / f"model.{format}"
    before.parent.mkdir()
    before.write_text("the one before")
    for target in (before, tmp_path / "new" / f"model.{format}"):
        with pytest.raises(ExportError, match="does not compute"):
            export(trained, format, target)
    assert files_below(tmp_path) == ["old", f"old/model.{format}"]
    assert before.read_text() == "the one before"


def test_a_network_that_cannot_be_exported(trained: Trained, tmp_path: Path) -> None:
    class DependsOnData(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))[:, :2] if images.sum() > 0 else images.amax((2, 3))[:, :2]

    other = dataclasses.replace(trained, module=DependsOnData().eval())
    with pytest.raises(ExportError, match="cannot be exported to pt2"):
        export(other, "pt2", tmp_path / "export" / "model.pt2")
    assert files_below(tmp_path) == []


def test_a_full_disk_is_reported_and_leaves_no_files(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(module: nn.Module, card: ModelCard, path: Path, reference: Any) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "pt2", dataclasses.replace(FORMATS["pt2"], write=full))
    with pytest.raises(
        SaveError, match=r"model\.pt2: cannot be written \(No space left on device\)\. Free some space"
    ):
        export(trained, "pt2", tmp_path / "model.pt2")
    assert files_below(tmp_path) == []


def test_onnx_is_an_extra(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(MissingExtraError, match="no_such_package"):
        export(trained, "onnx", tmp_path / "model.onnx")
    assert files_below(tmp_path) == []


def test_the_command_writes_into_the_run(cli: Callable[..., Any], trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    ended = cli("export", run, "--format", "safetensors")
    assert ended.code == 0, ended.err
    assert files_below(run / "export") == ["config.json", "model.safetensors", "novelty.safetensors"]
    assert str(run / "export" / "model.safetensors") in ended.out
    assert "12 val images" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "model.pth"], "must end in one of .onnx, .pt2, .safetensors"),
        (["--out", "model.pt2", "--format", "onnx"], "must end in .onnx"),
        (["--format", "tensorrt"], "tensorrt"),
        (["--opset", "17"], "at least 18"),
        (["--opset", "-1"], "at least 18"),
        (["--opset", "999"], "at most"),
        (["--opset", "20", "--format", "pt2"], "belongs to format onnx"),
        (["--opset", "20", "--out", "model.safetensors"], "belongs to format onnx"),
    ],
)
def test_wrong_options_are_exit_2(
    cli: Callable[..., Any], run: Path, chdir_tmp: Path, words: list[str], message: str
) -> None:
    ended = cli("export", run, *words)
    assert ended.code == 2
    assert message in ended.err
    assert files_below(chdir_tmp) == []


def test_a_folder_that_is_not_a_run_is_exit_2(cli: Callable[..., Any], chdir_tmp: Path) -> None:
    assert "no such folder" in cli("export", "nowhere").err
    (chdir_tmp / "empty").mkdir()
    ended = cli("export", "empty")
    assert ended.code == 2
    assert "not a run directory" in ended.err
