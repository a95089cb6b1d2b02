"""CSV files as sources: encodings, delimiters, labels, splits and faults."""

import contextlib
import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from finetune.data.dataset import Source
from finetune.data.sources.names.class_names import is_class_name, normalized
from finetune.data.sources.read import read_source
from finetune.data.sources.tables.read import column_values
from finetune.errors import DataError

Put = Callable[..., Path]


@pytest.fixture
def root(put: Put) -> Path:
    return put(*(f"{number}.png" for number in range(8)))


def read(root: Path, text: str | bytes) -> Source:
    table = root / "table.csv"
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_source(str(table))


def refused(root: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        read(root, text)
    return str(caught.value)


def labels(source: Source) -> dict[str, dict[str, str]]:
    """Split -> file name -> label."""
    return {
        name: {Path(split.name(i)).name: source.classes[target] for i, target in enumerate(split.targets)}
        for name, split in source.splits.items()
    }


def test_paths_and_labels_are_read(root: Path) -> None:
    source = read(root, "path,label\n1.png,b\n0.png,a\n2.png,a\n")
    assert source.classes == ("a", "b")
    assert labels(source) == {"all": {"0.png": "a", "2.png": "a", "1.png": "b"}}
    assert source.splits["all"].open(0).size == (10, 8)


def test_every_synonym_of_a_split_is_read(root: Path) -> None:
    rows = "0.png,a,train\n1.png,b,Train\n2.png,a,valid\n3.png,b,validation\n4.png,a,test\n5.png,b, TEST \n"
    assert labels(read(root, "path,label,split\n" + rows)) == {
        "train": {"0.png": "a", "1.png": "b"},
        "val": {"2.png": "a", "3.png": "b"},
        "test": {"4.png": "a", "5.png": "b"},
    }


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\n0.png,a\n1.png,b\n",
        b"path,label\r\n0.png,a\r\n1.png,b\r\n",
        b'"path","label"\n"0.png","a"\n"1.png","b"',
        b"Label, Path ,width\na,0.png,10\nb,1.png,10\n",
        b"path,label\n\n0.png,a\n,\n1.png,b\n\n",
        b"path,label,split\n0.png,a,\n1.png,b,\n",
    ],
)
def test_equivalent_tables_give_the_same_source(text: bytes, root: Path) -> None:
    assert labels(read(root, text)) == {"all": {"0.png": "a", "1.png": "b"}}


@pytest.mark.parametrize(
    "label", ["no", "007", "1e3", "null", "True", "1", "a,b", 'say "cheese"', "été", " x "]
)
def test_labels_stay_as_they_are_written(label: str, root: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["path", "label"], ["0.png", label], ["1.png", "other"]])
    assert label.strip() in read(root, text.getvalue()).classes


def test_absolute_paths_and_paths_above(root: Path, tmp_path: Path) -> None:
    (root / "lists").mkdir()
    (root / "lists" / "l.csv").write_text(f"path,label\n../0.png,a\n{root / '1.png'},b\n")
    assert len(read_source(str(root / "lists" / "l.csv")).splits["all"]) == 2


def test_the_order_of_the_rows_does_not_matter(root: Path) -> None:
    one = read(root, "path,label\n0.png,a\n1.png,b\n2.png,a\n").splits["all"]
    other = read(root, "path,label\n2.png,a\n1.png,b\n0.png,a\n").splits["all"]
    assert [one.name(i) for i in range(3)] == [other.name(i) for i in range(3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty file"),
        ("\n \n", "empty file"),
        ("path,label\n", "no rows"),
        ("file,class\n0.png,a\n", "table.csv:1: the header lacks path and label"),
        ("path,class\n0.png,a\n", "lacks label"),
        ("0.png,a\n1.png,b\n", "The first line must name the columns"),
        ("path,label,label\n0.png,a,b\n", "label more than once"),
        ("path,label\n0.png,a\n1.png,\n", "table.csv:3: the label is empty"),
        ("path,label\n0.png,a\n1.png,  \n", "table.csv:3: the label is empty"),
        ("path,label\n,a\n", "table.csv:2: the path is empty"),
        ("path,label\n0.png\n", "table.csv:2: 1 field, but the header has 2"),
        ("path,label\n0.png,a,b\n", "put quotes around"),
        ('path,label\n0.png,"a\x07b"\n', "control characters"),
        ("path,label\n0.png,a\nnope.png,b\n", "table.csv:3: "),
        ("path,label\n0.png,a\nnope.png,b\n", "nope.png: no such file"),
        ("path,label\n0.png,a\n.,b\n", "not a file"),
        ("path,label,split\n0.png,a,trian\n", "table.csv:2: unknown split 'trian'"),
        ("path,label,split\n0.png,a,train\n1.png,b,\n", "table.csv:3: the split is empty"),
        ("path,label,split\n0.png,a,test\n1.png,b,val\n", "no row has the split train"),
        ("path,label\n0.png,a\n./0.png,b\n", "table.csv:3: ./0.png is 'b' here, but 'a' in line 2"),
        ("path,label,split\n0.png,a,train\n0.png,a,test\n", "an image belongs to one split"),
        ("path,label\n0.png,cat\n1.png,Cat\n", "table.csv:3: the label 'Cat' differs from 'cat' in line 2"),
        ("path,label\n0.png,cat\n1.png,cat \n", "only in case, spaces or Unicode form"),
        ("path,label\n0.png,hot dog\n1.png,hot  dog\n", "only in case, spaces or Unicode form"),
        ('path,label\n0.png,a\n"1.png,b\n', "table.csv:3: "),
        ('path,label\n0.png,a\n"1".png,b\n', "table.csv:3: "),
        (b"path,label\n0.png,a\n1.png,caf\xe9\n", "table.csv:3: not UTF-8 (byte 0xe9)"),
        ("path,label\n0.png,a\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        (b"\x89PNG\0\0", "not a text file"),
    ],
)
def test_faults_name_the_line_and_the_problem(text: str | bytes, said: str, root: Path) -> None:
    assert said in refused(root, text)


def test_a_field_over_several_lines_keeps_the_line_numbers(root: Path) -> None:
    assert "table.csv:4: the label is empty" in refused(
        root, 'path,label,note\n0.png,a,"two\nlines"\n1.png,,x\n'
    )


def test_the_first_ten_faults_are_listed_and_the_rest_counted(root: Path) -> None:
    rows = "".join(f"gone{number}.png,a\n" for number in range(14))
    lines = refused(root, f"path,label\n0.png,\n{rows}1.png,b\n").splitlines()
    assert len(lines) == 11
    assert "table.csv:2: the label is empty" in lines[0]
    assert "table.csv:11: " in lines[9]
    assert "5 more" in lines[10]


def test_a_repeated_row_counts_once(root: Path) -> None:
    source = read(root, "path,label\n0.png,a\n1.png,b\n./0.png,a\n")
    assert len(source.splits["all"]) == 2
    assert "row (1)" in source.notes[0]


def test_a_label_that_train_lacks_is_an_error(root: Path) -> None:
    message = refused(root, "path,label,split\n0.png,hotdog,train\n1.png,other,train\n2.png,hotdgo,test\n")
    assert "only in test: 'hotdgo'" in message
    assert "in train: 'hotdog', 'other'" in message
    assert "Did you mean 'hotdog'?" in message


def test_a_rare_similar_label_gives_a_note(put: Put) -> None:
    root = put(*(f"{number}.png" for number in range(44)))
    rows = "".join(f"{number}.png,{'hotdog' if number < 22 else 'pizza'}\n" for number in range(43))
    source = read(root, f"path,label\n{rows}43.png,hotdgo\n")
    assert any("'hotdgo' (1) and 'hotdog' (22) differ" in note for note in source.notes)


def test_train_rows_alone_are_divided_later(root: Path) -> None:
    source = read(root, "path,label,split\n0.png,a,train\n1.png,b,train\n")
    assert list(source.splits) == ["all"]
    assert "split off" in source.notes[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(st.text(min_size=1, max_size=12).filter(is_class_name), min_size=2, max_size=8, unique=True),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_output_of_the_csv_module_is_read(root: Path, written: list[str], quoting: Literal[0, 1, 2]) -> None:
    assume(len({normalized(label) for label in written}) == len(written))
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(["path", "label"])
    writer.writerows([f"{number}.png", label] for number, label in enumerate(written))
    found = labels(read(root, text.getvalue()))["all"]
    expected = {f"{i}.png": unicodedata.normalize("NFC", label.strip()) for i, label in enumerate(written)}
    assert found == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(
    st.lists(
        st.text(min_size=1, max_size=8).filter(is_class_name), min_size=2, max_size=5, unique_by=normalized
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["", "sep={}", '"sep={}"', "SEP={}", "sep={};;"]),
    st.sampled_from(["\n", "\r\n"]),
    st.tuples(st.integers(0, 2), st.integers(0, 3)),
    st.booleans(),
)
def test_tables_from_spreadsheets_are_read(
    root: Path, written: list[str], delimiter: str, sep: str, end: str, empty: tuple[int, int], bom: bool
) -> None:
    """Other delimiters, Excel's `sep=` line, empty trailing columns and empty lines."""
    text = io.StringIO(newline="")
    if sep and (delimiter == ";" or not sep.endswith(";;")):
        text.write(sep.format(delimiter) + end)
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(["path", "Label", "note", *[""] * empty[0]])
    for number, label in enumerate(written):
        writer.writerow([f"{number}.png", label, "x", *[""] * (empty[1] if number % 2 else empty[0])])
    text.write(delimiter * 3 + end)
    data = b"\xef\xbb\xbf" * bom + text.getvalue().encode()
    found = labels(read(root, data))["all"]
    assert found == {f"{i}.png": unicodedata.normalize("NFC", each.strip()) for i, each in enumerate(written)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sep=;\npath;label\n0.png;\n", "table.csv:3: the label is empty"),
        ("sep=,\nfile,class\n0.png,a\n", "table.csv:2: the header lacks path and label"),
        ("filename;category\n0.png;a\n", "rename 'filename' to path and 'category' to label"),
        ("path,Target\n0.png,a\n", "rename 'Target' to label"),
        ("image,label\n0.png,a\n", "rename 'image' to path"),
        ("path;label\n0.png;a;b\n", "put quotes around a field that contains a semicolon"),
        ("path,label,,\n0.png,a,b,c\n", "4 fields, but the header has 2"),
        ("sep=;\n", "empty file"),
    ],
)
def test_faults_of_tables_from_other_programs(text: str, said: str, root: Path) -> None:
    assert said in refused(root, text)


def test_group_columns_with_another_delimiter(root: Path) -> None:
    text = "sep=;\nPath;label;Patient;\n0.png;a;x;\n1.png;b;y;\n"
    read(root, text)
    assert column_values(root / "table.csv", "patient") == {
        str(root / "0.png"): "x",
        str(root / "1.png"): "y",
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='pathlbe,sit"\n\r\t;01.g\0 ', max_size=120)))
def test_any_other_content_is_refused_with_a_message(root: Path, content: bytes | str) -> None:
    data = content if isinstance(content, bytes) else b"path,label\n0.png,a\n" + content.encode()
    with contextlib.suppress(DataError):
        assert sum(map(len, read(root, data).splits.values())) >= 1
