"""Export formats and metrics are registered once, and every other list of them follows that table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.deploy.export import FORMATS
from finetune.deploy.formats import Format, choose_format
from finetune.errors import FinetuneError, UserError
from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.evaluation.metrics import METRICS, Metric, classification_metrics
from finetune.evaluation.text import summary


def test_every_format_has_a_writer() -> None:
    assert [each.value for each in Format] == list(FORMATS)


def test_a_file_name_gives_the_format_and_an_unknown_one_is_an_error() -> None:
    assert [choose_format(None, Path(f"a.{name.upper()}")) for name in FORMATS] == list(FORMATS)
    for name in ("model", "model.pth", "onnx"):
        with pytest.raises(UserError, match=r"must end in one of \.onnx, \.pt2, \.safetensors"):
            choose_format(None, Path(name))


def evaluation(num_classes: int) -> Evaluation:
    logits, targets = np.eye(num_classes, dtype=np.float32), np.arange(num_classes, dtype=np.int64)
    classes = tuple("abcdefgh"[:num_classes])
    images: Any = None
    collected = Collected(logits, targets, targets, ())
    return Evaluation(collected.metrics(classes), collected, images, "test")


def test_json_and_screen_have_every_metric_of_the_table() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    found = evaluation(8)
    lines = summary(found).splitlines()
    for metric in METRICS.values():
        assert metric.name in found.to_dict()
        assert any(line.startswith(f"{metric.label}  ") for line in lines)
    assert "top5" not in evaluation(3).to_dict()


def test_a_new_metric_needs_only_a_table_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Metric("half", "half of it", lambda found: found.confidence.size / 2, lambda value: f"{value} h")
    monkeypatch.setitem(METRICS, "half", half)
    found = evaluation(8)
    assert found.to_dict()["half"] == 4.0
    assert "half of it         4.0 h" in summary(found)


def test_an_unknown_metric_is_an_error() -> None:
    found = classification_metrics(np.eye(2), np.arange(2), ["a", "b"])
    assert found["top5"] is None
    with pytest.raises(FinetuneError, match="unknown metric 'top7'; known are top1"):
        found["top7"]
