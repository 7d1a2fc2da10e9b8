"""Reading the user's data: formats, splits, and one test for each fault of the input."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.errors import DataError, InputError
from airlora.workload.data import Dataset, load_data
from airlora.workload.splits import hold_out_rows, hold_out_text

SHARED = Path(__file__).parents[2] / "shared" / "data"
ROWS = [(f"turn the light {i} on", "light") for i in range(20)] + [(f"play song {i}", "music") for i in range(10)]
shared_data = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")


def write(path: Path, rows: list[tuple[Any, ...]]) -> str:
    """Write rows in the format that the extension names; .json and .jsonl rows are objects with text and label."""
    records = [dict(zip(("text", "label"), row, strict=True)) for row in rows]
    if path.suffix == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return str(path)


def pairs(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    names = [dataset.labels[target] for target in dataset.targets[split]]
    return list(zip(dataset.texts[split], names, strict=True))


def refusal(action: Callable[[], object]) -> str:
    """The message of the DataError that ``action`` raises: one line."""
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize("extension", ["tsv", "csv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same_splits(tmp_path: Path, extension: str) -> None:
    dataset = load_data(write(tmp_path / f"data.{extension}", ROWS))
    reference = load_data(write(tmp_path / "reference.tsv", ROWS))
    assert dataset.task == "classify"
    assert dataset.labels == ("light", "music")
    assert dataset.texts == reference.texts
    assert {split: len(texts) for split, texts in dataset.texts.items()} == {"train": 24, "validation": 3, "test": 3}
    assert sorted(pair for split in dataset.texts for pair in pairs(dataset, split)) == sorted(ROWS)
    for split, target in dataset.targets.items():
        assert target.dtype == np.int64
        assert np.array_equal(target, reference.targets[split])


def test_tsv_takes_quotes_as_text(tmp_path: Path) -> None:
    rows = [('"quoted" at the start', "a"), ('one " alone', "b")] * 3
    dataset = load_data(write(tmp_path / "data.tsv", rows))
    assert {text for texts in dataset.texts.values() for text in texts} == {row[0] for row in rows}


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    rows = [('a "b", c\nd', "x"), ("plain", "y")] * 3
    dataset = load_data(write(tmp_path / "data.csv", rows))
    assert {text for texts in dataset.texts.values() for text in texts} == {'a "b", c\nd', "plain"}


def test_byte_order_mark_windows_lines_and_blank_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes("\ufeff".encode() + b"text\tlabel\r\none\ta\r\n\r\ntwo\tb\r\n" + b"one\ta\r\ntwo\tb\r\n" * 2)
    dataset = load_data(str(path))
    assert dataset.labels == ("a", "b")
    assert {text for texts in dataset.texts.values() for text in texts} == {"one", "two"}


def test_json_by_split_ignores_other_splits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data.json"
    splits = {"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]], "test": [["d", "y"]], "oos_test": [["e", "oos"]]}
    path.write_text(json.dumps(splits), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        dataset = load_data(str(path))
    assert dataset.texts == {"train": ("a", "b"), "validation": ("c",), "test": ("d",)}
    assert "oos_test" in caplog.text


def test_json_split_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    record = [{"id": 1, "utterance": "a", "intent": "x"}, {"id": 2, "utterance": "b", "intent": "y"}]
    path.write_text(json.dumps({"train": record, "dev": record, "test": record}), encoding="utf-8")
    assert pairs(load_data(str(path)), "test") == [("a", "x"), ("b", "y")]


def test_txt_is_cut_into_contiguous_parts(tmp_path: Path) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(200))
    (tmp_path / "data.txt").write_text(text, encoding="utf-8")
    dataset = load_data(str(tmp_path / "data.txt"))
    assert dataset.task == "lm"
    assert (dataset.labels, dataset.targets) == ((), {})
    assert dataset.texts == {"train": (text[:180],), "validation": (text[180:190],), "test": (text[190:],)}


def test_other_encodings_are_read_when_named(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("caf\u00e9\ta\nthé\tb\n" * 3, encoding="latin-1")
    assert "café" in load_data(str(path), encoding="latin-1").texts["train"]


# ------------------------------------------------------------------ columns


def test_usual_names_are_found_among_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,Intent,speaker,Utterance\n" + "7,x,me,hello\n8,y,me,bye\n" * 3, encoding="utf-8")
    assert set(pairs(load_data(str(path)), "test")) == {("hello", "x"), ("bye", "y")}


@pytest.mark.parametrize(("text", "label"), [("words", "kind"), ("0", "kind"), ("words", "2"), (None, "kind")])
def test_columns_by_name_or_index_below_an_unusual_header(tmp_path: Path, text: str | None, label: str) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("words\tid\tkind\n" + "hello\t1\tx\nbye\t2\ty\n" * 3, encoding="utf-8")
    if text is None:
        assert "cannot tell which column is the text" in refusal(lambda: load_data(str(path), label_column=label))
    else:
        dataset = load_data(str(path), text_column=text, label_column=label)
        assert set(pairs(dataset, "test")) == {("hello", "x"), ("bye", "y")}


def test_words_above_numbers_are_a_header(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("phrase,mood\nhello,1\nbye,0\n" * 1 + "hey,1\nciao,0\nhi,1\nadieu,0\n", encoding="utf-8")
    assert load_data(str(path)).labels == ("0", "1")


def test_a_usual_name_that_recurs_is_a_label_and_no_header(tmp_path: Path) -> None:
    rows = [(f"is it {i}?", "question") for i in range(3)] + [(f"do {i}", "command") for i in range(3)]
    dataset = load_data(write(tmp_path / "data.tsv", rows))
    assert sum(map(len, dataset.texts.values())) == 6
    assert dataset.labels == ("command", "question")


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_unnamed_columns_the_repeating_one_is_the_label(tmp_path: Path, swapped: bool) -> None:
    rows = [row[::-1] if swapped else row for row in ROWS]
    assert load_data(write(tmp_path / "data.tsv", rows)).labels == ("light", "music")


def test_numeric_labels_keep_the_order_of_numbers(tmp_path: Path) -> None:
    rows = [(f"text {i}", str(i % 11)) for i in range(44)]
    assert load_data(write(tmp_path / "data.tsv", rows)).labels == tuple(map(str, range(11)))


def test_numbers_and_truth_values_become_strings(tmp_path: Path) -> None:
    numbers = write(tmp_path / "numbers.json", [("a", 1.0), ("b", 2), ("c", 0.5)] * 3)
    assert load_data(numbers).labels == ("0.5", "1", "2")
    truths = write(tmp_path / "truths.jsonl", [("a", True), ("b", False)] * 3)
    assert load_data(truths).labels == ("false", "true")


def test_lm_reads_the_text_column_of_a_labelled_table(tmp_path: Path) -> None:
    dataset = load_data(write(tmp_path / "data.tsv", ROWS), task="lm")
    assert dataset.task == "lm"
    assert sorted(text for texts in dataset.texts.values() for text in texts) == sorted(text for text, _ in ROWS)


def test_a_table_without_labels_is_read_for_lm_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps({"id": i, "text": f"text {i}"}) for i in range(10)), encoding="utf-8")
    dataset = load_data(str(path))
    assert dataset.task == "lm"
    assert [len(dataset.texts[split]) for split in ("train", "validation", "test")] == [8, 1, 1]
    assert "no label column" in caplog.text


# ------------------------------------------------------------------ folders and splits


@pytest.mark.parametrize("name", ["validation", "val", "dev"])
def test_a_folder_keeps_its_splits_and_their_order(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / f"{name}.csv", ROWS[5:7] + ROWS[25:])
    write(tmp_path / "test.jsonl", ROWS[::-1])
    (tmp_path / "README.md").write_text("about", encoding="utf-8")
    dataset = load_data(str(tmp_path))
    assert pairs(dataset, "train") == ROWS
    assert pairs(dataset, "validation") == ROWS[5:7] + ROWS[25:]
    assert pairs(dataset, "test") == ROWS[::-1]


def test_a_missing_validation_split_is_taken_from_train_never_from_test(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS)
    test = [("dim the light", "light"), ("sing", "music")]
    write(tmp_path / "test.tsv", test)
    dataset = load_data(str(tmp_path))
    assert pairs(dataset, "test") == test
    assert Counter(pairs(dataset, "train") + pairs(dataset, "validation")) == Counter(ROWS)
    assert Counter(label for _, label in pairs(dataset, "validation")) == {"light": 2, "music": 1}


def test_a_folder_of_txt_takes_missing_validation_from_the_end_of_train(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a" * 95 + "b" * 5, encoding="utf-8")
    (tmp_path / "test.txt").write_text("c", encoding="utf-8")
    assert load_data(str(tmp_path)).texts == {"train": ("a" * 95,), "validation": ("b" * 5,), "test": ("c",)}


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    source = write(tmp_path / "data.tsv", ROWS)
    assert load_data(source, seed=3).texts == load_data(source, seed=3).texts
    assert load_data(source, seed=3).texts["test"] != load_data(source, seed=4).texts["test"]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(3, 40), min_size=1),
    st.sampled_from([("validation",), ("test",), ("validation", "test")]),
    st.integers(0, 99),
)
def test_held_out_rows_are_a_stratified_partition(sizes: dict[str, int], missing: tuple[str, ...], seed: int) -> None:
    classes = [name for name, size in sizes.items() for _ in range(size)]
    parts = hold_out_rows(classes, missing, seed, "data")
    assert tuple(parts) == ("train", *missing)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(classes)))
    for split in missing:
        counts = Counter(classes[row] for row in parts[split])
        assert counts == {name: max(1, round(size / 10)) for name, size in sizes.items()}
        assert np.all(np.diff(parts[split]) > 0)


@settings(max_examples=40, deadline=None)
@given(st.text("abc", min_size=40, max_size=500), st.sampled_from([("test",), ("validation", "test")]))
def test_held_out_text_is_a_partition_in_order(text: str, missing: tuple[str, ...]) -> None:
    parts = hold_out_text(text, missing, "data")
    assert "".join(parts.values()) == text
    for split in missing:
        assert abs(len(parts[split]) - len(text) / 20) < 1


# ------------------------------------------------------------------ faults of the input


def test_fault_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(lambda: load_data(str(tmp_path / "absent.csv")))
    assert "does not exist" in refusal(lambda: load_data(""))


@pytest.mark.parametrize("name", ["data.tsv", "data.csv", "data.json", "data.jsonl", "data.txt"])
@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_fault_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "is empty" in refusal(lambda: load_data(str(tmp_path / name)))


def test_fault_header_without_rows(tmp_path: Path) -> None:
    assert "is empty: 0 rows" in refusal(lambda: load_data(write(tmp_path / "data.csv", [])))


def test_fault_one_class(tmp_path: Path) -> None:
    message = refusal(lambda: load_data(write(tmp_path / "data.tsv", ROWS[:8])))
    assert "one class, 'light'" in message
    assert "--label-column" in message


@pytest.mark.parametrize(("extension", "row"), [("tsv", 4), ("csv", 5), ("jsonl", 4)])
def test_fault_missing_label(tmp_path: Path, extension: str, row: int) -> None:
    rows = [*ROWS[:3], ("no label here", ""), *ROWS[3:]]
    assert f"row {row} has no label" in refusal(lambda: load_data(write(tmp_path / f"data.{extension}", rows)))


@pytest.mark.parametrize(("extension", "label"), [("tsv", "NaN"), ("csv", "nan"), ("jsonl", float("nan"))])
def test_fault_nan_label(tmp_path: Path, extension: str, label: object) -> None:
    rows = [*ROWS, ("strange", label)]
    row = len(rows) + (extension == "csv")
    message = refusal(lambda: load_data(write(tmp_path / f"data.{extension}", rows)))
    assert f"row {row} has the label NaN" in message


def test_fault_null_label(tmp_path: Path) -> None:
    message = refusal(lambda: load_data(write(tmp_path / "data.json", [*ROWS, ("strange", None)])))
    assert f"row {len(ROWS) + 1} has no label" in message


def test_fault_nested_label(tmp_path: Path) -> None:
    message = refusal(lambda: load_data(write(tmp_path / "data.json", [*ROWS, ("strange", ["x"])])))
    assert "a string or a number is needed" in message


def test_fault_wrong_encoding(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes("ok\ta\ncafé\tb\n".encode("latin-1"))
    message = refusal(lambda: load_data(str(path)))
    assert "is not utf-8: byte 0xe9 at offset 8" in message
    assert "--encoding latin-1" in message


def test_fault_utf16_names_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("one\ta\ntwo\tb\n" * 3, encoding="utf-16")
    assert "--encoding utf-16" in refusal(lambda: load_data(str(path)))
    assert load_data(str(path), encoding="utf-16").labels == ("a", "b")


def test_fault_unknown_encoding(tmp_path: Path) -> None:
    source = write(tmp_path / "data.tsv", ROWS)
    assert "unknown text encoding 'utf-99'" in refusal(lambda: load_data(source, encoding="utf-99"))


@pytest.mark.parametrize("option", ["text_column", "label_column"])
def test_fault_wrong_column_lists_those_there_are(tmp_path: Path, option: str) -> None:
    source = write(tmp_path / "data.csv", ROWS)
    message = refusal(lambda: load_data(source, **{option: "intention"}))
    assert "no column 'intention'; found the columns text, label" in message


def test_fault_index_beyond_the_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "data.tsv", ROWS)
    message = refusal(lambda: load_data(source, text_column="0", label_column="2"))
    assert "no column '2'; found 2 columns without a header (0 … 1)" in message


def test_fault_ambiguous_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("question,sentence,label\nq,s,x\n", encoding="utf-8")
    message = refusal(lambda: load_data(str(path)))
    assert "cannot tell which column is the text; found the columns question, sentence, label" in message
    path.write_text("text,intent,label\nt,i,x\n", encoding="utf-8")
    assert "cannot tell which column is the label" in refusal(lambda: load_data(str(path)))


def test_fault_one_column_for_both(tmp_path: Path) -> None:
    source = write(tmp_path / "data.tsv", ROWS)
    assert "both text and label" in refusal(lambda: load_data(source, text_column="1", label_column="1"))


def test_fault_repeated_column_name(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label,label\na,x,y\n", encoding="utf-8")
    assert "has the column 'label' twice" in refusal(lambda: load_data(str(path)))


def test_fault_classify_without_a_label_column(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"id": 1, "text": "a"}', encoding="utf-8")
    message = refusal(lambda: load_data(str(path), task="classify"))
    assert "no label column among the columns id, text" in message


def test_fault_ragged_row(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("one\ta\ntwo\tb\nthree\tb\tc\n", encoding="utf-8")
    assert "row 3 has 3 columns, the rows before have 2" in refusal(lambda: load_data(str(path)))


def test_fault_row_numbers_count_the_lines_of_a_csv_cell(tmp_path: Path) -> None:
    source = write(tmp_path / "data.csv", [("two\nlines", "a"), ("no label", ""), ("c", "b")])
    assert "row 4 has no label" in refusal(lambda: load_data(source))


@pytest.mark.parametrize("name", ["data.xlsx", "data", "data.tsv.gz"])
def test_fault_unknown_extension_lists_those_allowed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("one\ta\n", encoding="utf-8")
    message = refusal(lambda: load_data(str(tmp_path / name)))
    assert ".tsv, .csv, .json, .jsonl, .parquet, .txt" in message


@pytest.mark.parametrize("text", ["", "  "])
def test_fault_empty_text_cell(tmp_path: Path, text: str) -> None:
    message = refusal(lambda: load_data(write(tmp_path / "data.csv", [*ROWS, (text, "light")])))
    assert f"row {len(ROWS) + 2} has no text" in message


def test_fault_text_is_a_number(tmp_path: Path) -> None:
    source = write(tmp_path / "data.json", [(1, "a"), (2, "b")] * 3)
    assert "row 1 has int '1' as text" in refusal(lambda: load_data(source))


def test_fault_folder_without_split_files(tmp_path: Path) -> None:
    write(tmp_path / "notes.tsv", ROWS)
    message = refusal(lambda: load_data(str(tmp_path)))
    assert "no split files; found notes.tsv; needed: train.EXT" in message


def test_fault_folder_without_train(tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", ROWS)
    assert "has no train split; found test" in refusal(lambda: load_data(str(tmp_path)))


def test_fault_folder_with_two_files_for_a_split(tmp_path: Path) -> None:
    for name in ("train.tsv", "val.tsv", "dev.tsv"):
        write(tmp_path / name, ROWS)
    assert "two files for validation, dev.tsv and val.tsv" in refusal(lambda: load_data(str(tmp_path)))


def test_fault_folder_with_a_split_of_unknown_extension(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS)
    (tmp_path / "test.xlsx").write_bytes(b"PK")
    assert "test.xlsx has the unknown extension '.xlsx'" in refusal(lambda: load_data(str(tmp_path)))


def test_fault_folder_that_mixes_text_and_tables(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS)
    (tmp_path / "test.txt").write_text("text", encoding="utf-8")
    assert "mixes .txt with tables" in refusal(lambda: load_data(str(tmp_path)))


def test_fault_header_of_test_differs_from_train(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    (tmp_path / "test.csv").write_text("sentence,label\na,light\n", encoding="utf-8")
    message = refusal(lambda: load_data(str(tmp_path)))
    assert "found the columns sentence, label; needed: the columns text, label" in message


def test_fault_named_columns_beside_a_train_file_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.jsonl", ROWS)
    message = refusal(lambda: load_data(str(tmp_path)))
    assert "test.jsonl has the columns text, label, but " in message
    assert "train.tsv has no header" in message


def test_fault_class_that_train_lacks(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "test.csv", [("a", "light"), ("b", "weather")])
    message = refusal(lambda: load_data(str(tmp_path)))
    assert "test.csv: row 3 has the label 'weather', which train lacks" in message


def test_fault_class_with_too_few_rows_to_stratify(tmp_path: Path) -> None:
    message = refusal(
        lambda: load_data(write(tmp_path / "data.tsv", [*ROWS, ("rain?", "weather"), ("sun?", "weather")]))
    )
    assert "class 'weather' has 2 of the 3 or more rows needed" in message


def test_fault_too_little_text_to_split(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("short", encoding="utf-8")
    assert "5 characters leave the validation split blank" in refusal(lambda: load_data(str(tmp_path / "data.txt")))


def test_fault_plain_text_has_neither_columns_nor_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("words " * 50, encoding="utf-8")
    assert "--label-column 1" in refusal(lambda: load_data(str(path), label_column="1"))
    assert "use --task lm" in refusal(lambda: load_data(str(path), task="classify"))


def test_fault_label_column_for_lm(tmp_path: Path) -> None:
    source = write(tmp_path / "data.csv", ROWS)
    assert "uses no labels" in refusal(lambda: load_data(source, task="lm", label_column="label"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("data.json", '{"train": [', "is not valid JSON"),
        ("data.json", '{"rows": []}', "the keys 'rows'; allowed: a list of rows, or {split: rows}"),
        ("data.json", '{"train": "x"}', "data.json[train] is str"),
        ("data.json", '[["a", "x"], {"text": "b"}]', "rows of type dict, list"),
        ("data.json", '{"train": [["a", "x"]], "val": [["a", "x"]], "dev": [["a", "x"]]}', "validation split twice"),
        ("data.json", "[]", "is empty: 0 rows"),
        ("data.jsonl", '{"text": "a"}\n\n{"text"\n', "row 3 is not valid JSON"),
        ("data.csv", 'text,label\na,x\n"b,y\n', "row 3 is not valid CSV"),
        ("data.parquet", "not parquet", "cannot be read as .parquet"),
    ],
)
def test_fault_malformed_file(tmp_path: Path, name: str, content: str, expected: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert expected in refusal(lambda: load_data(str(tmp_path / name)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "b", "text", "label"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["train", "text", "label"]), inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["tsv", "csv", "json", "jsonl", "txt"]),
    st.binary(max_size=60)
    | st.text('ab"\t\n,1', max_size=60).map(str.encode)
    | _JSON.map(lambda v: json.dumps(v).encode()),
    st.sampled_from([None, "0", "text"]),
)
def test_any_content_is_either_read_or_refused_as_data(
    tmp_path_factory: pytest.TempPathFactory, extension: str, content: bytes, column: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{extension}"
    path.write_bytes(content)
    texts: tuple[str, ...] = ()
    message = ""
    try:
        texts = load_data(str(path), text_column=column).texts["train"]
    except DataError as error:
        message = str(error)
    assert (texts == ()) == (len(message.splitlines()) == 1)
    assert all(isinstance(text, str) and text.strip() for text in texts)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"texts": {"train": ("a",)}}, "has the splits train, validation, test"),
        ({"texts": {"train": ("a",), "validation": (), "test": ("c",)}}, "the validation split has 0 texts"),
        ({"labels": ("x",)}, "2 or more different classes"),
        ({"labels": ("x", "x")}, "2 or more different classes"),
        ({"targets": {}}, "targets of train"),
        ({"targets": dict.fromkeys(("train", "validation", "test"), np.array([2]))}, "allowed: 0 … 1"),
        ({"targets": dict.fromkeys(("train", "validation", "test"), np.array([0.0]))}, "needed: int64"),
        ({"task": "lm"}, "takes no labels"),
    ],
)
def test_an_inconsistent_dataset_is_refused(changes: dict[str, Any], expected: str) -> None:
    splits = ("train", "validation", "test")
    values: dict[str, Any] = {
        "task": "classify",
        "labels": ("x", "y"),
        "texts": dict.fromkeys(splits, ("a",)),
        "targets": dict.fromkeys(splits, np.array([1])),
    }
    Dataset(**values)
    assert expected in refusal(lambda: Dataset(**(values | changes)))


# ------------------------------------------------------------------ builtins and the hub


def test_builtin_data_sets_with_their_options() -> None:
    pytest.importorskip("airlora.workload.builtin")
    commands = load_data("builtin:vehicle-commands,train=200,validation=60,test=80")
    assert [len(commands.texts[split]) for split in ("train", "validation", "test")] == [200, 60, 80]
    assert commands.task == "classify"
    logs = load_data("builtin:vehicle-logs")
    assert logs.task == "lm"
    assert all(len(texts) == 1 for texts in logs.texts.values())


@pytest.mark.parametrize("source", ["builtin:no-such-data", "builtin:vehicle-commands,colour=red"])
def test_fault_unknown_builtin_or_option(source: str) -> None:
    pytest.importorskip("airlora.workload.builtin")
    with pytest.raises(InputError, match=r"no-such-data|colour"):
        load_data(source)


class _HubSplit(list):
    """The part of ``datasets.Dataset`` that is used: rows, column_names, features."""

    column_names = ("sentence", "label", "idx")
    features = {  # noqa: RUF012
        "sentence": SimpleNamespace(dtype="string"),
        "label": SimpleNamespace(names=["negative", "positive"]),
        "idx": SimpleNamespace(dtype="int32"),
    }


def _install_hub(monkeypatch: pytest.MonkeyPatch, load_dataset: Callable[[str], Any]) -> None:
    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_classes_get_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _HubSplit({"sentence": f"text {i}", "label": i % 2, "idx": i} for i in range(20))
    _install_hub(monkeypatch, lambda name: {"train": rows, "test": rows, "unsupervised": rows})
    dataset = load_data("owner/name")
    assert dataset.labels == ("negative", "positive")
    assert pairs(dataset, "test")[:2] == [("text 0", "negative"), ("text 1", "positive")]
    assert [len(dataset.texts[split]) for split in ("train", "validation", "test")] == [18, 2, 20]


def test_fault_hub_row_without_label(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _HubSplit({"sentence": f"text {i}", "label": i % 2, "idx": i} for i in range(20))
    unlabelled = _HubSplit([{"sentence": "text", "label": -1, "idx": 0}])
    _install_hub(monkeypatch, lambda name: {"train": rows, "test": unlabelled})
    assert "owner/name[test]: row 1 has no label" in refusal(lambda: load_data("owner/name"))


def test_fault_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ConnectionError("no route\nto host")

    _install_hub(monkeypatch, fail)
    message = refusal(lambda: load_data("owner/name"))
    assert "(no route)" in message
    assert "check the name and the network" in message


def test_fault_hub_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'airlora[hub]'" in refusal(lambda: load_data("some-data"))


# ------------------------------------------------------------------ real data


@shared_data
def test_sst2_just_works() -> None:
    dataset = load_data(str(SHARED / "sst2"))
    assert dataset.labels == ("0", "1")
    assert [len(dataset.texts[split]) for split in ("train", "validation", "test")] == [6920, 872, 1821]
    assert pairs(dataset, "validation")[0] == ("one long string of cliches", "0")


@shared_data
def test_cola_needs_its_columns_named() -> None:
    source = str(SHARED / "cola" / "in_domain_train.tsv")
    dataset = load_data(source, text_column="3", label_column="1")
    assert dataset.labels == ("0", "1")
    assert sum(map(len, dataset.texts.values())) == 8551
    assert "4 columns without a header (0 … 3)" in refusal(lambda: load_data(source))


@shared_data
def test_clinc150_without_its_out_of_scope_splits() -> None:
    dataset = load_data(str(SHARED / "clinc150" / "data_full.json"))
    assert len(dataset.labels) == 150
    assert "oos" not in dataset.labels
    assert [len(dataset.texts[split]) for split in ("train", "validation", "test")] == [15000, 3000, 4500]


@shared_data
def test_tinyshakespeare_is_cut_without_loss() -> None:
    path = SHARED / "tinyshakespeare.txt"
    dataset = load_data(str(path))
    joined = "".join(dataset.texts[split][0] for split in ("train", "validation", "test"))
    assert joined == path.read_bytes().decode()
