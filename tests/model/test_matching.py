"""Foreign checkpoints: wrappers are stripped, names and shapes matched, and every entry reported."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetune.errors import WeightsError
from finetune.model.backbones import create
from finetune.model.layers.find import find_layers
from finetune.model.weights.load_report import LoadReport
from finetune.model.weights.matching import MatchRules, load_matching


class Net(nn.Module):
    def __init__(self, classes: int = 4, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.deep = nn.Conv2d(5, width, 1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.deep(self.norm(self.stem(x)).relu()).mean((2, 3)))


def load(content: Any, network: nn.Module | None = None, **options: Any) -> tuple[nn.Module, LoadReport]:
    network = network or Net()
    settings: dict[str, Any] = {"min_share": 0.9} | options
    rules = MatchRules(**settings)
    return network, load_matching(network, find_layers(network), content, "file.pt", rules)


def body(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("fc")}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, body(b)[name]) for name, value in body(a).items())


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def test_a_plain_state_dict() -> None:
    source, before = Net(), Net()
    untouched = before.fc.weight.clone()
    network, report = load(source.state_dict(), before)
    assert same(network, source)
    assert torch.equal(before.fc.weight, untouched)
    assert report.share == 1.0
    assert set(report.loaded) == set(body(source))
    assert not report.kept
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert "head" in report.unused["fc.weight"]


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "backbone.", "module.model.", "model.backbone.", "_orig_mod.module.", "ema."],
)
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model",), ("checkpoint", "ema", "module")])
def test_wrappers_are_stripped(prefix: str, wrapper: tuple[str, ...]) -> None:
    source = Net()
    content: Any = {**prefixed(prefix, source.state_dict()), "epoch": 3}
    for key in reversed(wrapper):
        content = {key: content, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "epoch": 7}
    network, report = load(content)
    assert same(network, source)
    assert report.wrapper == ".".join(wrapper)
    assert f"{prefix}fc.weight" in report.unused


def test_a_moving_average_is_preferred() -> None:
    raw, average = Net(), Net()
    for content in (
        {"model": raw.state_dict(), "model_ema": average.state_dict()},
        {
            "state_dict": raw.state_dict(),
            "ema": {"module": average.state_dict(), "n_averaged": torch.tensor(3)},
        },
    ):
        network, report = load(content)
        assert same(network, average)
        assert "ema" in report.wrapper


def test_the_better_match_wins() -> None:
    source = Net()
    content = {"ema": {"stem.weight": torch.zeros(5, 3, 3, 3)}, "net": source.state_dict()}
    assert same(load(content)[0], source)
    both = prefixed("model.", source.state_dict()) | {"module.stem.weight": torch.zeros(5, 3, 3, 3)}
    network, report = load(both)
    assert same(network, source)
    assert report.unused["module.stem.weight"] == "model.stem.weight was loaded instead"


def test_two_layers_of_the_wrong_shape() -> None:
    source, kept = Net(width=7), Net()
    before = kept.deep.weight.clone()
    network, report = load(source.state_dict(), kept, min_share=0.5)
    assert set(report.kept) == {"deep.weight", "deep.bias"}
    assert report.kept["deep.weight"] == "its shape is (7, 5, 1, 1), the network's (6, 5, 1, 1)"
    assert report.unused["deep.weight"] == report.kept["deep.weight"]
    assert torch.equal(kept.deep.weight, before)
    assert torch.equal(network.get_parameter("stem.weight"), source.stem.weight)
    total = sum(p.numel() for n, p in kept.named_parameters() if not n.startswith("fc"))
    assert report.share == pytest.approx(1 - (6 * 5 + 6) / total)
    with pytest.raises(
        WeightsError, match=r"does not fit.*2 kept .*its shape is \(7, 5, 1, 1\).*At least 90 %"
    ):
        load(source.state_dict())


def test_a_refused_checkpoint_changes_nothing() -> None:
    network = Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    poisoned = Net().state_dict()
    poisoned["deep.weight"][0, 0] = float("nan")
    for content in (Net(width=7).state_dict(), poisoned):
        with pytest.raises(WeightsError):
            load(content, network)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    state = Net().state_dict()
    state["norm.running_var"][2] = value
    with pytest.raises(
        WeightsError, match=r"1 entries have values that are not finite, such as norm\.running_var"
    ):
        load(state)


def test_only_dense_tensors_of_the_same_kind_are_loaded() -> None:
    source = Net()
    network, _ = load({name: value.half() for name, value in source.state_dict().items()})
    torch.testing.assert_close(network.get_parameter("deep.weight"), source.deep.weight, atol=1e-3, rtol=1e-3)
    state = source.state_dict()
    state["deep.bias"] = torch.ones(6).to_sparse()
    report = load(state, min_share=0.5)[1]
    assert report.kept["deep.bias"] == "not a plain dense tensor"
    state["stem.bias"] = torch.ones(5, dtype=torch.int64)
    with pytest.raises(
        WeightsError, match=r"stem\.bias cannot be loaded: it is int64, the network's float32"
    ):
        load(state, min_share=0.5)
    state["stem.bias"] = torch.full((5,), 1e300, dtype=torch.float64)
    with pytest.raises(WeightsError, match="not finite"):
        load(state, min_share=0.5)


@pytest.mark.parametrize(
    "content", [None, [], torch.ones(2), {}, {"a": 1}, {"a": {"b": {}}}, {1: torch.ones(1)}]
)
def test_a_file_without_tensors_is_refused(content: Any) -> None:
    with pytest.raises(WeightsError, match="contains no tensors by name"):
        load(content)


def test_a_file_of_another_network_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"0\.0 % of the body.*Is it a checkpoint of another backbone"):
        load({"features.0.weight": torch.ones(3)})


def test_batch_counters_are_not_missed() -> None:
    state = {name: value for name, value in Net().state_dict().items() if "num_batches" not in name}
    assert not load(state)[1].kept


def test_the_head_is_loaded_on_request() -> None:
    source = Net()
    network, report = load(source.state_dict(), with_head=True)
    assert torch.equal(network.get_parameter("fc.weight"), source.fc.weight)
    assert not report.unused


OLD_NAMES = {
    "densenet": [("norm1.", "norm.1."), ("norm2.", "norm.2."), ("conv1.", "conv.1."), ("conv2.", "conv.2.")],
    "vit": [(".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2.")],
}


@pytest.mark.parametrize("family_of_old", sorted(OLD_NAMES))
def test_names_from_before_torchvision_renamed_modules(
    family_of_old: str, small: Callable[..., nn.Module]
) -> None:
    """The published files of DenseNet and ViT have them."""
    source = small(family_of_old)
    old = {}
    for name, value in source.state_dict().items():
        former = name
        if family_of_old == "vit" or "denselayer" in name:
            for now, then in OLD_NAMES[family_of_old]:
                former = former.replace(now, then)
        old[former] = value
    assert old.keys() != source.state_dict().keys()
    network, report = load(old, small(family_of_old, seed=1), with_head=True, min_share=1.0)
    assert not report.unused
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())


def test_buffers_of_auxiliary_classifiers_belong_to_the_head() -> None:
    source = create("googlenet", 10)
    report = load(source.state_dict(), create("googlenet", 10), min_share=1.0)[1]
    assert not any(name.startswith(("aux", "fc")) for name in report.loaded)
    assert not report.kept
    alone = load(source.state_dict(), create("googlenet", 10, auxiliary=False), min_share=1.0)[1]
    assert alone.unused["aux1.fc1.weight"] == "the network has no such entry"


def test_the_report_is_plain_data() -> None:
    report = load(Net().state_dict())[1]
    assert report.to_dict()["share"] == 1.0
    assert report.summary().startswith("9 entries loaded, 100.0 % of the body's parameters; 2 of the file")


def renamed(**prefixes: str) -> dict[str, Tensor]:
    """The state of a Net with other names."""
    state = {}
    for name, value in Net().state_dict().items():
        first, _, rest = name.partition(".")
        state[f"{prefixes.get(first, first)}.{rest}"] = value
    return state


def test_rules_rename_entries() -> None:
    state = renamed(stem="basenet.slice1", norm="basenet.slice2", deep="basenet.slice3")
    with pytest.raises(WeightsError, match=r"0\.0 % of the body"):
        load(state, min_share=0.5)
    rules = {"basenet.slice1.": "stem.", "basenet.slice2.": "norm.", "basenet.slice": "x", "x3": "deep"}
    for prefix in ("", "module."):  # rules apply with and without a wrapper's prefix
        report = load({prefix + name: value for name, value in state.items()}, rename=rules)[1]
        assert report.share == 1.0
        assert report.rename == {
            "basenet.slice1.": 2, "basenet.slice2.": 5, "basenet.slice": 2, "x3": 2,
        }  # fmt: skip
        assert not report.partial
    whole = {f"module.{name}": value for name, value in state.items()}
    rules = {f"module.{old}" if "." in old else old: new for old, new in rules.items()}
    assert load(whole, rename=rules)[1].share == 1.0


def test_a_rule_without_effect_is_reported() -> None:
    report = load(Net().state_dict(), rename={"basement.": "stem."})[1]
    assert report.partial
    assert "nothing in the file begins with 'basement.' (rename)" in report.summary()


def test_an_unknown_wrapper() -> None:
    """It is found within a known wrapper too, and beside entries with other names."""
    for prefix in ("encoder.", "module.trunk.main."):
        state = {f"{prefix}{name}": value for name, value in Net().state_dict().items()}
        state["projector.0.weight"] = torch.ones(3)
        network, report = load(state)
        assert report.share == 1.0
        assert report.rename == {prefix: 11}
        assert report.unused["projector.0.weight"] == "the network has no such entry"
        assert torch.equal(network.get_parameter("stem.weight"), state[f"{prefix}stem.weight"])


def test_a_part_that_was_trained_on_several_devices() -> None:
    source = Net()
    state = {name.replace("deep.", "deep.module."): value for name, value in source.state_dict().items()}
    network, report = load(state)
    assert same(network, source)
    assert not report.kept


def test_layers_of_the_wrong_shape_are_named() -> None:
    state = Net().state_dict()
    state["stem.weight"], state["deep.weight"] = torch.ones(5, 1, 3, 3), torch.ones(7, 5, 1, 1)
    network = Net()
    before = network.stem.weight.detach().clone()
    report = load(state, network, min_share=0.05)[1]
    assert torch.equal(network.stem.weight, before)
    text = "\n".join(report.lines())
    for part in (
        "stem.weight: its shape is (5, 1, 3, 3), the network's (5, 3, 3, 3)",
        "deep.weight: its shape is (7, 5, 1, 1), the network's (6, 5, 1, 1)",
        "fc.weight, fc.bias: the new head's",
    ):
        assert part in text
    with pytest.raises(WeightsError, match=r"(?s)min_share.*stem\.weight: its shape"):
        load(state)


def test_a_long_table_is_cut() -> None:
    network, source = create("densenet121"), create("densenet121")
    state = {name: value[..., None] for name, value in source.state_dict().items() if value.ndim}
    lines = load(state, network, min_share=0.0)[1].lines()
    assert len(lines) == 18
    assert lines[-1].endswith("rows more")


def test_other_names_are_recognised() -> None:
    """If only the names differ, the message proposes rules, and these rules work."""
    source = Net()
    renamed = {
        name.replace("stem.", "a.first.").replace("norm.", "a.second."): t for name, t in body(source).items()
    }
    with pytest.raises(WeightsError) as caught:
        load(renamed)
    for rule in ('"a.first.": "stem."', '"a.second.": "norm."'):
        assert rule in str(caught.value)
    network, report = load(renamed, rename={"a.first.": "stem.", "a.second.": "norm."})
    assert same(network, source)
    assert not report.kept


def test_the_message_says_how_to_load_a_part() -> None:
    part = {name: value for name, value in body(Net()).items() if not name.startswith("deep")}
    with pytest.raises(WeightsError, match=r"set model\.weights\.min_share to 0\.(\d+)\.") as caught:
        load(part)
    said = re.search(r"min_share to (0\.\d+)\.", str(caught.value))
    assert said is not None
    assert load(part, min_share=float(said.group(1)))[1].kept.keys() == {"deep.weight", "deep.bias"}


def test_averages_come_first_and_foreign_prefixes_are_named() -> None:
    source, other = Net(), Net()
    student = prefixed("module.backbone.", body(other))
    network, report = load({"student": student, "teacher": prefixed("backbone.", body(source))})
    assert same(network, source)
    assert report.wrapper == "teacher"
    both = prefixed("module.encoder_q.", body(source)) | prefixed("module.encoder_k.", body(other))
    network, report = load({"state_dict": both})
    assert same(network, source)
    assert "behind 'module.encoder_q.'" in report.summary()
