"""Malformed files: each is answered by one line that names the file and says what to do."""

from __future__ import annotations

import gzip
import lzma
import re
from pathlib import Path
from typing import Any

import pytest

from pretune.data.readers import read_samples
from pretune.data.splits import check_labels, split
from pretune.errors import UserError

GOOD = "text,label\ngood film,pos\nbad film,neg\n"
LINES = b"text,label\n" + b"".join(b"good film %d,pos\nbad film %d,neg\n" % (i, i) for i in range(400))
PACKED = gzip.compress(LINES, mtime=0)

# name, file, bytes, options of read_samples, what the message matches. The lines of a message are one.
CASES: list[tuple[str, str, bytes, dict[str, Any], str]] = [
    (
        "latin-1 bytes",
        "a.csv",
        "text,label\ngood,pos\ncafé,neg\n".encode("latin-1"),
        {},
        r"a\.csv:3: byte 0xe9 is not UTF-8; .*--encoding latin-1",
    ),
    (
        "UTF-16 of a spreadsheet",
        "a.csv",
        GOOD.encode("utf-16"),
        {},
        r"a\.csv:1: is UTF-16.*--encoding utf-16",
    ),
    ("UTF-16 without mark", "a.csv", GOOD.encode("utf-16-le"), {}, r"a\.csv:1: NUL byte.*--encoding utf-16"),
    ("NUL bytes", "a.csv", b"text,label\ngood\0film,pos\n", {}, r"a\.csv:2: NUL byte"),
    ("NUL bytes in json", "a.jsonl", b'{"text": "a", "label": "b"}\n\0\0\n', {}, r"a\.jsonl:2: NUL byte"),
    (
        "wrong stated encoding",
        "a.csv",
        "text,label\né,pos\n".encode(),
        {"encoding": "ascii"},
        r"a\.csv:2: byte 0xc3 is not ASCII; .*--encoding",
    ),
    (
        "unknown encoding",
        "a.csv",
        GOOD.encode(),
        {"encoding": "utf-9"},
        r"--encoding 'utf-9' is no text encoding",
    ),
    ("empty file", "a.csv", b"", {}, r"a\.csv: is empty"),
    ("empty json file", "a.jsonl", b"\n\n", {}, r"a\.jsonl: is empty"),
    ("header only", "a.csv", b"text,label\n", {}, r"a\.csv: has a header .*and no rows"),
    (
        "ragged row, too many",
        "a.csv",
        b"text,label\ngood,pos\nwell, bad,neg\n",
        {},
        r"a\.csv:3: 3 columns where the first row has 2; quote",
    ),
    ("ragged row, too few", "a.csv", b"text,label\ngood,pos\nbad\n", {}, r"a\.csv:3: 1 columns where"),
    ("ragged row of a tsv", "a.tsv", b"text\tlabel\ngood\tfilm\tpos\n", {}, r"a\.tsv:2: 3 columns .*spaces"),
    (
        "open quote",
        "a.csv",
        b'text,label\ngood,pos\n"bad,neg\nworse,neg\n',
        {},
        r"a\.csv:3: a quoted field opens",
    ),
    (
        "quote within a quoted field",
        "a.csv",
        b'text,label\n"a "good" film",pos\n',
        {},
        r"a\.csv:2: malformed row",
    ),
    ("old Mac line ends", "a.csv", GOOD.replace("\n", "\r").encode(), {}, r"a\.csv:1: .*carriage returns"),
    (
        "missing column",
        "a.csv",
        GOOD.encode(),
        {"label": ["lable"]},
        r"a\.csv: no column 'lable' \(--label\); did you mean 'label'\? columns: 'text', 'label'",
    ),
    (
        "two columns in one option",
        "a.csv",
        GOOD.encode(),
        {"text": ["text, label"]},
        r"no column 'text, label' .*; each has an option of its own: --text text --text label; columns",
    ),
    (
        "missing text column",
        "a.jsonl",
        b'{"review": "good", "stars": 5}\n',
        {"text": ["body"]},
        r"a\.jsonl: no column 'body' \(--text\); columns: 'review', 'stars'",
    ),
    (
        "column number out of range",
        "a.csv",
        b"1,good\n0,bad\n",
        {"text": ["2"], "label": ["0"]},
        r"a\.csv: no column '2' \(--text\).*columns: '0', '1'",
    ),
    (
        "column named twice",
        "a.csv",
        b"text,label,text\na,b,c\n",
        {},
        r"a\.csv:1: two columns are named 'text'",
    ),
    ("header again", "a.csv", (GOOD + GOOD).encode(), {}, r"a\.csv:4: the header stands here again"),
    (
        "one column for both",
        "a.csv",
        GOOD.encode(),
        {"text": ["label"], "label": ["label"]},
        r"a\.csv: .*named twice",
    ),
    ("no label column", "a.csv", b"text\ngood\nbad\n", {}, r"a\.csv: no column for the labels .*--label"),
    (
        "no text column",
        "a.csv",
        b"a,label\n1,0\n2,1\n",
        {"label": ["label"]},
        r"a\.csv: no column holds text .*--text",
    ),
    ("no label anywhere", "a.csv", b"text,label\ngood,\nbad,\n", {}, r"a\.csv: no row has a label .*--label"),
    ("no text anywhere", "a.csv", b"text,label\n ,pos\n,neg\n", {}, r"a\.csv: no row has a text .*--text"),
    (
        "word among numbers",
        "a.csv",
        b"text,label\ngood,4.5\nbad,low\n",
        {"kind": "number"},
        r"a\.csv:3: label 'low' is not a number",
    ),
    (
        "word among flags",
        "a.csv",
        b"text,toxic,rude\ngood,0,1\nbad,yes,0\n",
        {"label": ["toxic", "rude"]},
        r"a\.csv:3: 'yes' in label column 'toxic'.* 0 or 1",
    ),
    (
        "many labels in one word",
        "a.csv",
        GOOD.encode(),
        {"kind": "many"},
        r"a\.csv: --kind many .*--label-separator",
    ),
    (
        "separator and one label",
        "a.csv",
        GOOD.encode(),
        {"kind": "one", "label_separator": ";"},
        r"a\.csv: .*--label-separator makes many labels",
    ),
    (
        "broken json",
        "a.jsonl",
        b'{"text": "a", "label": "b"}\n{"text": "c" "label": "d"}\n',
        {},
        r"a\.jsonl:2: not valid JSON at column 14 \(Expecting ',' delimiter\)",
    ),
    (
        "json cut short",
        "a.jsonl",
        b'{"text": "a", "label": "b"}\n{"text": "c", "la',
        {},
        r"a\.jsonl:2: not valid JSON",
    ),
    (
        "json list",
        "a.json",
        b'[{"text": "a", "label": "b"}]\n',
        {},
        r"a\.json:1: a list where an object such as",
    ),
    (
        "json printed over lines",
        "a.json",
        b'{\n  "text": "a"\n}\n',
        {},
        r"a\.json:1: not valid JSON .*one whole object",
    ),
    ("json NaN", "a.jsonl", b'{"text": "a", "label": NaN}\n', {}, r"a\.jsonl:1: NaN is not JSON"),
    (
        "half a surrogate pair",
        "a.jsonl",
        b'{"text": "a\\ud83d", "label": "b"}\n',
        {},
        r"a\.jsonl:1: half a surrogate",
    ),
    ("deeply nested json", "a.jsonl", b"[" * 200_000 + b"\n", {}, r"a\.jsonl:1: "),
    (
        "text that is a list",
        "a.jsonl",
        b'{"text": ["a", "b"], "label": "c"}\n',
        {},
        r"a\.jsonl:1: the text is a list",
    ),
    (
        "label that is an object",
        "a.jsonl",
        b'{"text": "a", "label": {"b": 1}}\n',
        {},
        r"a\.jsonl:1: the label is a dict",
    ),
    ("gz cut short", "a.csv.gz", PACKED[: len(PACKED) // 2], {}, r"a\.csv\.gz: the packed file is cut short"),
    ("xz cut short", "a.csv.xz", lzma.compress(LINES)[:-20], {}, r"a\.csv\.xz: the packed file is cut short"),
    ("gz in name only", "a.csv.gz", GOOD.encode(), {}, r"a\.csv\.gz: not valid gz data"),
    ("xz in name only", "a.csv.xz", GOOD.encode(), {}, r"a\.csv\.xz: not valid xz data"),
    ("gz without the name", "a.csv", PACKED, {}, r"a\.csv: is gzip data in spite of its name; add \.gz"),
    ("Excel file", "a.csv", b"PK\x03\x04rest", {}, r"a\.csv: is a zip or Excel file.*CSV"),
    ("no Parquet inside", "a.parquet", b"text,label\n", {}, r"a\.parquet: not readable as Parquet"),
    (
        "unknown ending",
        "a.xlsx",
        b"anything",
        {},
        r"a\.xlsx: unknown ending; name it \.csv.*--format csv\|tsv",
    ),
    ("unknown format", "a.csv", GOOD.encode(), {"format": "cvs"}, r"--format is 'cvs'; did you mean 'csv'\?"),
    (
        "labels asked of plain lines",
        "a.txt",
        b"good\nbad\n",
        {},
        r"a\.txt: plain lines have no labels.*--format",
    ),
    (
        "label-first without label",
        "a.txt",
        b"pos good\n bad\n",
        {"format": "label-first"},
        r"a\.txt:2: starts with a space",
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "data", "options", "message"), CASES, ids=[case[0] for case in CASES]
)
def test_a_malformed_file_is_answered_by_one_clear_line(
    tmp_path: Path, name: str, file: str, data: bytes, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / file
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_samples(path, **options)
    said = str(caught.value)
    assert re.search(message, said), said
    assert "\n" not in said and len(said) < 240


def test_a_missing_file_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    with pytest.raises(UserError, match=r"no such file: .*trian\.csv; nearest: train\.csv"):
        read_samples(tmp_path / "trian.csv")
    with pytest.raises(UserError, match=r"no such file: .*there is no folder .*nowhere"):
        read_samples(tmp_path / "nowhere" / "train.csv")


def test_a_folder_without_class_folders_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    with pytest.raises(UserError, match=r"no class folders inside \(it holds train\.csv\); name a file"):
        read_samples(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no class folders inside \(it is empty\)"):
        read_samples(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no files inside; put one text a file"):
        read_samples(tmp_path)


def test_a_folder_where_a_file_is_needed_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    with pytest.raises(UserError, match="is a folder where a file is needed"):
        read_samples(tmp_path, format="csv")
    with pytest.raises(UserError, match=r"train\.csv: a file where --format folder needs a folder"):
        read_samples(tmp_path / "train.csv", format="folder")


def test_a_missing_pyarrow_is_answered_by_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"a\.parquet: Parquet needs pyarrow; run pip install 'pretune\[data\]'"
    ):
        read_samples(tmp_path / "a.parquet")


def test_one_class_and_one_row_say_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood,pos\nfine,pos\n")
    with pytest.raises(UserError, match=r"a\.csv: 2 training rows, all with the label 'pos'"):
        check_labels(read_samples(path).samples, [], "one")
    path.write_text("text,label\ngood,pos\n")
    with pytest.raises(UserError, match=r"a\.csv: 1 training row, all with the label 'pos'"):
        check_labels(read_samples(path).samples, [], "one")
    with pytest.raises(UserError, match=r"a\.csv: 1 row cannot be split"):
        split(read_samples(path).samples, 0.5, 1)


def test_a_line_of_a_megabyte_is_no_bad_input(tmp_path: Path) -> None:
    long = "word " * 250_000
    (tmp_path / "a.csv").write_text(f"text,label\n{long},pos\nbad,neg\n")
    assert read_samples(tmp_path / "a.csv").samples[0].texts == (long,)
