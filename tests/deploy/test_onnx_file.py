"""The names of files in an ONNX file are all found, and refused before any is opened."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from finetune.deploy.onnx_file import check_locations, read_outline
from finetune.errors import CheckpointError


def outside(location: str, name: str = "w") -> TensorProto:
    """A tensor with its data in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_naming_files_everywhere() -> onnx.ModelProto:
    """External data in each place of the format that can hold a tensor."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside("in-branch"))], "branch", [], [out]
    )
    listed = helper.make_node("Custom", [], ["l"])
    listed.attribute.append(helper.make_attribute("tensors", [outside("in-list")]))
    listed.attribute.append(helper.make_attribute("graphs", [inner]))
    sparse = onnx.SparseTensorProto(values=outside("sparse-values"), indices=outside("sparse-indices"))
    listed.attribute.append(helper.make_attribute("sparse", sparse))
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner), listed]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 9, [])], [out])
    graph.initializer.append(outside("initializer"))
    graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside("initializer-values")))
    model = helper.make_model(graph)
    function = helper.make_function(
        "f", "F", [], ["c"], [helper.make_node("Constant", [], ["c"], value=outside("in-function"))], []
    )
    function.attribute_proto.append(helper.make_attribute("default", outside("function-default")))
    model.functions.append(function)
    training = model.training_info.add()
    training.algorithm.initializer.append(outside("training"))
    training.initialization.initializer.append(outside("training-start"))
    model.metadata_props.add(key="finetune.card", value="Grüße")
    model.metadata_props.add(key="other", value="")
    return model


EVERYWHERE = model_naming_files_everywhere()
PLACES = {
    "in-branch", "in-list", "sparse-values", "sparse-indices", "initializer", "initializer-values",
    "in-function", "function-default", "training", "training-start",
}  # fmt: skip


def test_every_place_that_can_name_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(EVERYWHERE.SerializeToString())
    outline = read_outline(path)
    assert set(outline.locations) == PLACES
    assert outline.metadata == {"finetune.card": "Grüße", "other": ""}


def named_by_protobuf(message: object) -> Iterator[str]:
    """Yield all locations in a parsed message, found by reflection."""
    if isinstance(message, TensorProto):
        for entry in message.external_data:
            if entry.key == "location":
                yield entry.value
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.message_type is None:
            continue
        for inner in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
            yield from named_by_protobuf(inner)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_altered_bytes_hide_no_file(tmp_path: Path, data: st.DataObject) -> None:
    """Every file name that protobuf finds in damaged bytes is found."""
    content = bytearray(EVERYWHERE.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) - 7, len(content) // 2]))]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        expected = set(named_by_protobuf(onnx.load_model_from_string(bytes(content))))
    except Exception:
        expected = set()
    try:
        found = set(read_outline(path).locations)
    except CheckpointError:
        return  # refusing more than protobuf does is safe
    assert expected <= found


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a model", b"\x0a" * 99, b"\x3a\xff\xff\xff\x7f"])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not an ONNX model"):
        read_outline(path)


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.onnx"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_outline(path)


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../weights", "a/../../b", "folder/weights", "..", ".", "", "C:weights", "a\\b", "a\0b"],
)
def test_files_in_other_folders_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(CheckpointError, match="refused"):
        check_locations(tmp_path / "model.onnx", (location,))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret").write_text("")
    (folder / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="refused"):
        check_locations(folder / "model.onnx", ("weights",))


def test_a_file_beside_the_model_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.data").write_text("")
    check_locations(tmp_path / "model.onnx", ("model.onnx.data",))
    with pytest.raises(CheckpointError, match="not beside it"):
        check_locations(tmp_path / "model.onnx", ("gone.data",))
