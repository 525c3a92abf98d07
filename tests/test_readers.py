"""A user's files are read as they were meant: every text and label, exactly."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pretune.data.readers import Reading, read_samples

# no NUL, no half surrogates; at least one character that is not white space
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1).filter(
    str.strip
)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)
ODD = [
    ("null", "NA"),
    ("NA", "null"),
    ('say "no", twice', "a,b"),
    ("two\nlines\r\n", "\ttab"),
    ("好 🙂\u2028é", "None"),
]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(reading: Reading) -> list[tuple[str, Any]]:
    return [(sample.texts[0], sample.gold) for sample in reading.samples]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
@example(rows=ODD)
def test_what_csv_and_json_lines_were_given_they_give_back(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("text", "label"), *rows])
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    for name, content in (("a.csv", buffer.getvalue()), ("a.jsonl", lines)):
        reading = read_samples(written(tmp_path, name, content), text=["text"], label=["label"], kind="one")
        assert pairs(reading) == rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.xz", "a.CSV.GZ"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_packing_and_byte_order_marks_change_nothing(tmp_path: Path, name: str, mark: bytes) -> None:
    data = mark + "text,label\nnull,pos\nNA,négatif\n".encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix.lower(), bytes)
    reading = read_samples(written(tmp_path, name, pack(data)))
    assert pairs(reading) == [("null", "pos"), ("NA", "négatif")]
    assert [sample.key for sample in reading.samples] == [f"{name}:2", f"{name}:3"]


@pytest.mark.parametrize("encoding", ["latin-1", "gb18030", "utf-16", "utf-8-sig"])
def test_other_encodings_are_read_when_stated(tmp_path: Path, encoding: str) -> None:
    text = "café" if encoding == "latin-1" else "很好"
    path = written(tmp_path, "a.csv", f"text,label\n{text},pos\nbad,neg\n".encode(encoding))
    assert pairs(read_samples(path, encoding=encoding)) == [(text, "pos"), ("bad", "neg")]


def test_rows_keep_their_line_numbers_after_texts_of_several_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text,label\n"one\ntwo",a\n\nthree,b\n')
    reading = read_samples(path)
    assert [sample.key for sample in reading.samples] == ["a.csv:2", "a.csv:5"]
    assert "a.csv: 1 blank line skipped (a.csv:4)" in reading.notes


def test_quotes_are_ordinary_characters_in_a_tsv(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'sentence\tlabel\n"never\t1\nsay "so"\t0\r\n')
    assert pairs(read_samples(path)) == [('"never', "1"), ('say "so"', "0")]


def test_semicolons_of_a_european_spreadsheet_are_found_and_noted(tmp_path: Path) -> None:
    reading = read_samples(written(tmp_path, "a.csv", "text;label\ngood, even fine;1\nbad;0\n"))
    assert pairs(reading) == [("good, even fine", "1"), ("bad", "0")]
    assert "a.csv: columns are separated by ';'" in reading.notes


@pytest.mark.parametrize(
    ("header", "row", "texts", "label"),
    [
        ("id,label,rating,text", "1,neg,3,bad film", ("text",), "label"),
        ("Review,Stars", "bad film,2", ("Review",), "Stars"),
        ("index,sentence1,sentence2,label", "0,rain,water,yes", ("sentence1", "sentence2"), "label"),
        ("premise,hypothesis,gold_label", "rain,water,yes", ("premise", "hypothesis"), "gold_label"),
        ("words,id,kind", "a rather long text,9,b", ("words",), "kind"),
    ],
)
def test_columns_are_guessed_by_name_then_by_value_and_noted(
    tmp_path: Path, header: str, row: str, texts: tuple[str, ...], label: str
) -> None:
    other = row.replace("9", "10").replace("rain", "snow").replace("0,", "7,")
    last = row.replace("9", "11").replace("rain", "fog").replace("0,", "8,").rpartition(",")[0] + ",other"
    reading = read_samples(written(tmp_path, "a.csv", f"{header}\n{row}\n{other}\n{last}\n"))
    assert (reading.text_columns, reading.label_columns) == (texts, (label,))
    assert sum("(guessed; " in note for note in reading.notes) == 2
    named = read_samples(tmp_path / "a.csv", text=texts, label=[label])
    assert named.samples == reading.samples
    assert not any("guessed" in note for note in named.notes)


def test_a_file_without_header_is_seen_as_such(tmp_path: Path) -> None:
    rows = "great stuff,pos\nawful stuff,neg\nfine stuff,pos\n"
    reading = read_samples(written(tmp_path, "a.csv", rows))
    assert pairs(reading)[0] == ("great stuff", "pos")
    assert any("line 1 is read as data" in note for note in reading.notes)
    assert (
        len(
            read_samples(written(tmp_path, "b.csv", "1,so good\n0,so bad\n"), text=["1"], label=["0"]).samples
        )
        == 2
    )
    assert len(read_samples(written(tmp_path, "c.csv", "a,b\nx,y\n"), text=["0"], label=["1"]).samples) == 2


def test_a_header_that_is_a_sentence_is_a_header_beside_a_well_known_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "How satisfied are you with us?,rating\nvery much,5\nnot at all,1\n")
    reading = read_samples(path)
    assert pairs(reading) == [("very much", "5"), ("not at all", "1")]


def test_column_numbers_serve_a_file_with_header_too(tmp_path: Path) -> None:
    reading = read_samples(written(tmp_path, "a.csv", "label,text\n1,good\n0,bad\n"), text=["1"], label=["0"])
    assert pairs(reading) == [("good", "1"), ("bad", "0")]
    assert (reading.text_columns, reading.label_columns) == (("text",), ("label",))


def test_several_text_columns_are_parts_in_the_order_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "title,body,tag,label\nt,b,,x\n,b2,g,y\n")
    reading = read_samples(path, text=["body", "title", "tag"])
    assert [sample.texts for sample in reading.samples] == [("b", "t", ""), ("b2", "", "g")]


def test_labelled_rows_without_text_or_label_are_left_out_and_noted(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text,label\ngood,pos\n"  ",neg\nmeh,\nbad,neg\n,\n')
    reading = read_samples(path)
    assert pairs(reading) == [("good", "pos"), ("bad", "neg")]
    assert "a.csv: 2 rows without text left out (a.csv:3, a.csv:6)" in reading.notes
    assert "a.csv: 1 row without label left out (a.csv:4)" in reading.notes


def test_json_null_is_no_label_but_the_word_null_is(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": null}',
        '{"text": "null", "label": "null"}',
        '{"text": "b"}',
        '{"text": "c", "label": 3}',
    ]
    reading = read_samples(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert pairs(reading) == [("null", "null"), ("c", "3")]
    assert any("2 rows without label left out (a.jsonl:1, a.jsonl:3)" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\ngood,pos\n"",\n" ",neg\nbad,neg\n'),
        ("a.jsonl", '{"text": "good"}\n{"text": null}\n{"text": " "}\n{"text": "bad"}\n'),
        ("a.txt", "good\n\n \nbad\n"),
        ("a.tsv", "text\ngood\n\n \nbad\n"),
    ],
)
def test_prediction_keeps_every_row_in_order_without_gold(tmp_path: Path, name: str, content: str) -> None:
    reading = read_samples(written(tmp_path, name, content), labelled=False)
    assert pairs(reading) == [("good", None), ("", None), (" ", None), ("bad", None)]
    assert reading.label_columns == ()


def test_prediction_does_not_mistake_the_only_text_for_a_header(tmp_path: Path) -> None:
    assert len(read_samples(written(tmp_path, "a.csv", "good\nbad\n"), labelled=False).samples) == 2
    assert len(read_samples(written(tmp_path, "b.csv", "text\nbad\n"), labelled=False).samples) == 1


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["0", "1", "1"], "one"),
        (["1.0", "2.0", "5.0"], "one"),
        (["0.5", "2", "5.0"], "number"),
        ([str(n) for n in range(21)], "number"),
        ([str(n) for n in range(20)], "one"),
        (["0.5", "nan", "1"], "one"),
        ([f"class{n}" for n in range(30)], "one"),
    ],
)
def test_the_kind_of_label_is_guessed_and_noted(tmp_path: Path, labels: list[str], kind: str) -> None:
    rows = "".join(f"text number {i},{label}\n" for i, label in enumerate(labels))
    reading = read_samples(written(tmp_path, "a.csv", f"text,label\n{rows}"))
    assert reading.kind == kind
    assert [sample.gold for sample in reading.samples] == [
        float(w) if kind == "number" else w for w in labels
    ]
    assert any(note.startswith("a.csv: labels are") for note in reading.notes)
    asked = read_samples(tmp_path / "a.csv", kind="one")
    assert [sample.gold for sample in asked.samples] == labels


def test_many_labels_come_as_columns_or_with_a_separator_or_as_lists(tmp_path: Path) -> None:
    expected = [("a", ("rude", "toxic")), ("b", ()), ("c", ("rude",))]
    columns = written(tmp_path, "a.csv", "text,toxic,rude\na,1,1\nb,0,0\nc,0,1\nd,,\n")
    separated = written(tmp_path, "b.csv", "text,label\na,toxic; rude\nb,\nc,rude\n")
    lists = written(
        tmp_path,
        "c.jsonl",
        '{"text": "a", "labels": ["toxic", "rude"]}\n{"text": "b", "labels": []}\n'
        '{"text": "c", "labels": ["rude"]}\n{"text": "d", "labels": null}\n',
    )
    for reading in (
        read_samples(columns, label=["toxic", "rude"]),
        read_samples(separated, label_separator=";"),
        read_samples(lists),
    ):
        assert reading.kind == "many"
        assert pairs(reading) == expected


def test_labels_that_differ_by_a_space_are_kept_apart_and_noted(tmp_path: Path) -> None:
    reading = read_samples(written(tmp_path, "a.csv", "text,label\ngood,pos\nfine, pos\nbad,neg\n"))
    assert {sample.gold for sample in reading.samples} == {"pos", " pos", "neg"}
    assert any("differ by spaces or capitals" in note for note in reading.notes)


def test_a_folder_of_class_folders_gives_one_sample_a_file(tmp_path: Path) -> None:
    root = tmp_path / "reviews"
    for name in ("pos", "neg", ".hidden"):
        (root / name).mkdir(parents=True)
    (root / "pos" / "2.txt").write_text("good\nfilm\n")
    (root / "pos" / "1.txt.gz").write_bytes(gzip.compress("très bon".encode(), mtime=0))
    (root / "neg" / "1").write_text("bad")
    (root / "neg" / ".DS_Store").write_bytes(b"\0")
    (root / "README").write_text("about")
    reading = read_samples(root)
    assert pairs(reading) == [("bad", "neg"), ("très bon", "pos"), ("good\nfilm", "pos")]
    assert reading.samples[0].key == "reviews/neg/1"
    assert any("files beside the class folders are not read (README)" in note for note in reading.notes)
    flat = read_samples(root / "pos", labelled=False)
    assert [sample.gold for sample in flat.samples] == [None, None]


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "text": ["null", "", "NA", "x"],
        "stars": [1, 2, 2, None],
        "tags": [["a", "b"], [], ["b"], None],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    reading = read_samples(tmp_path / "a.parquet")
    assert pairs(reading) == [("null", "1"), ("NA", "2")]
    assert reading.samples[1].key == "a.parquet:3"
    many = read_samples(tmp_path / "a.parquet", label=["tags"])
    assert pairs(many) == [("null", ("a", "b")), ("NA", ("b",))]
    assert len(read_samples(tmp_path / "a.parquet", labelled=False).samples) == 4


def test_label_first_lines_are_label_space_text(tmp_path: Path) -> None:
    path = written(tmp_path, "train.all", "DESC:manner How so ?\n\n0\ttab works  too\n1\n")
    reading = read_samples(path, format="label-first")
    assert pairs(reading) == [("How so ?", "DESC:manner"), ("tab works  too", "0")]
    assert any("1 row without text left out (train.all:4)" in note for note in reading.notes)


def test_sst_and_trec_are_read_as_released(shared: Callable[[str], Path]) -> None:
    sst = read_samples(shared("data/sst/stsa.binary.dev"), format="label-first")
    assert (len(sst.samples), sst.kind) == (872, "one")
    assert (sst.samples[0].texts, sst.samples[0].gold) == (("one long string of cliches .",), "0")
    trec = read_samples(shared("data/trec/TREC.train.all"), format="label-first", encoding="latin-1")
    assert len(trec.samples) == 5452
    assert {sample.gold for sample in trec.samples} == set("012345")


def test_chnsenticorp_and_stsb_are_read_as_released(shared: Callable[[str], Path]) -> None:
    chinese = read_samples(shared("data/chnsenticorp/train.tsv.xz"))
    assert (chinese.text_columns, chinese.label_columns) == (("text_a",), ("label",))
    assert len(chinese.samples) == 9600 and {sample.gold for sample in chinese.samples} == {"0", "1"}
    similarity = read_samples(shared("data/stsb/stsb-en-dev.csv"), text=["0", "1"], label=["2"])
    assert (len(similarity.samples), similarity.kind) == (1500, "number")
    assert similarity.samples[1].gold == 4.75
