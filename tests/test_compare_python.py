"""compare from Python: frames, Datasets and dicts are read as files are; the result shows and answers."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_up import made_up
from pretune.data.frames import is_table, table_of
from pretune.data.readers import from_table
from pretune.errors import UsageError, UserError
from pretune.runs.compare import compare
from pretune.runs.comparison import Comparison

WORDS = {"cat": "meow purr tail the", "dog": "woof bark tail the"}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    chance = np.random.default_rng(seed)
    labels = [("cat", "dog")[i % 2] for i in range(count)]
    return [
        {
            "review": " ".join([*chance.choice(WORDS[label].split(), 6), f"{seed}x{i}"]),
            "animal": label,
            "id": i,
        }
        for i, label in enumerate(labels)
    ]


TRAIN, TEST = rows(60, 1), rows(30, 2)


def quick(train: Any, test: Any, out: Path, **changes: Any) -> Comparison:
    options: dict[str, Any] = {"text": "review", "label": "animal", "methods": ["tfidf"], "sizes": [40]}
    options |= {"seeds": 2, "jobs": 1, "settings": {"tfidf": {"strengths": [10.0]}}} | changes
    return compare(train, test, out=out, **options)


@dataclass
class Dataset:
    """Rows with named columns, as the library datasets has them."""

    rows: list[dict[str, Any]]
    features: dict[str, Any]

    @property
    def column_names(self) -> list[str]:
        return list(self.rows[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class ClassLabel:
    names: list[str]


def written(path: Path, found: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def test_a_frame_a_dataset_and_dicts_say_what_the_file_says(tmp_path: Path) -> None:
    file = quick(written(tmp_path / "a.csv", TRAIN), written(tmp_path / "b.csv", TEST), tmp_path / "file")
    numbered = [{**row, "animal": ("cat", "dog").index(row["animal"])} for row in TRAIN]
    kinds = {
        "frame": (pd.DataFrame(TRAIN), pd.DataFrame(TEST, index=range(100, 130))),
        "dicts": (TRAIN, TEST),
        "dataset": (Dataset(numbered, {"animal": ClassLabel(["cat", "dog"]), "id": None}), TEST),
    }
    for name, (train, test) in kinds.items():
        found = quick(train, test, tmp_path / name)
        assert [(r.score, r.scores) for r in found.rows] == [(r.score, r.scores) for r in file.rows], name
        assert found.data["fingerprint"] == file.data["fingerprint"], name
        assert found.data["text_columns"] == ["review"] and found.data["label_columns"] == ["animal"]


def test_columns_are_guessed_and_a_test_set_is_held_out(tmp_path: Path) -> None:
    found = quick(pd.DataFrame(TRAIN).rename(columns={"animal": "label"}), None, tmp_path, text=(), label=())
    assert found.data["label_columns"] == ["label"] and found.data["test"] == 12
    assert any(
        "labels from column 'label' (guessed" in note or "one of 2: 'cat' 30" in note for note in found.notes
    )


@pytest.mark.slow
def test_workers_see_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(TRAIN).astype({"animal": "category"})
    here, there = (quick(frame, TEST, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert [row.score for row in here.rows] == [row.score for row in there.rows]


def test_missing_cells_and_whole_numbers_survive_pandas() -> None:
    frame = pd.DataFrame({"text": ["a b", None, "c d", "e f"], "stars": [1, 2, None, 5]})
    assert frame["stars"].dtype == float
    found = from_table(table_of(frame, "train"), text=["text"], label=["stars"])
    assert [(s.key, s.texts, s.gold) for s in found.samples] == [
        ("train:0", ("a b",), "1"),
        ("train:3", ("e f",), "5"),
    ]
    assert any("without text left out (train:1)" in note for note in found.notes)
    assert any("without label left out (train:2)" in note for note in found.notes)
    nullable = frame.astype({"stars": "Int64"})
    assert table_of(nullable, "t").rows == table_of(frame, "t").rows


def test_numpy_cells_become_plain_ones() -> None:
    cells = {
        "text": np.str_("a"),
        "topics": np.array(["x", "y"]),
        "flag": np.bool_(True),
        "pair": ("u", np.int64(3)),
    }
    (row,) = table_of([cells], "t").rows
    assert list(row.cells) == ["a", ["x", "y"], True, ["u", 3]]
    assert [type(cell) for cell in row.cells] == [str, list, bool, list]
    many = from_table(table_of([cells, {"text": "b", "topics": []}], "t"), text=["text"], label=["topics"])
    assert many.kind == "many" and [s.gold for s in many.samples] == [("x", "y"), ()]


def test_questions_with_choices_come_in_frames(tmp_path: Path) -> None:
    asked = [
        {"question": f"what says {a} {i}?", "choices": np.array([WORDS[a], WORDS[b]]), "answer": 0}
        for i in range(20)
        for a, b in (("cat", "dog"), ("dog", "cat"))
    ]
    options = {"text": (), "label": (), "sizes": [20], "task": "choice"}
    found = quick(pd.DataFrame(asked), asked[:10], tmp_path, **options)
    assert found.metric == "accuracy" and found.data["test"] == 10


@pytest.mark.parametrize(
    ("train", "changes", "message"),
    [
        (pd.DataFrame(TRAIN), {"text": "reviw"}, "train: no column 'reviw'.*did you mean 'review'"),
        ([*TRAIN, "text"], {}, r"train:60: str 'text' where a dict is needed; give a pandas"),
        (
            [*TRAIN, {"review": ["a"], "animal": "cat"}],
            {},
            r"train:60: the text is a list \(column 'review'\)",
        ),
        ([*TRAIN, {"review": "a", "animal": {}}], {}, r"train:60: the label is a dict \(column 'animal'\)"),
        (TRAIN, {"kind": "number"}, r"train:0: label 'cat' is not a number \(column 'animal'\)"),
        (pd.DataFrame(TRAIN), {"format": "csv"}, "--format is for files, and train is a DataFrame"),
        ({"train": TRAIN}, {}, "train is a dict; give a file, a list of pretune.Sample, a pandas DataFrame"),
        (["a text", "another"], {}, "train: number 0 is a str; give a file"),
        (pd.DataFrame({"review": [], "animal": []}), {}, "train: holds no rows"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), {}, "train: two columns are named 'x'"),
        (
            pd.DataFrame(TRAIN),
            {"task": "tagging"},
            "tagging takes no DataFrame of rows; give a file, a list of",
        ),
        (
            Dataset([{"review": "a", "animal": 7}], {"animal": ClassLabel(["cat"])}),
            {},
            r"train:0: column 'animal' holds '7', which is none of its 1 labels \(cat\)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_row_and_column(
    train: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        quick(train, None, tmp_path, **changes)


def test_a_label_of_minus_one_is_none() -> None:
    data = Dataset(
        [{"text": "a", "label": 0}, {"text": "b", "label": -1}], {"label": ClassLabel(["no", "yes"])}
    )
    assert is_table(data) and [row.cells for row in table_of(data, "t").rows] == [["a", "no"], ["b", None]]


def test_a_real_dataset_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"review": datasets.Value("string"), "animal": datasets.ClassLabel(names=["cat", "dog"])}
    )
    plain = {"review": [r["review"] for r in TRAIN], "animal": [r["animal"] for r in TRAIN]}
    train = datasets.Dataset.from_dict(plain, features=features)
    found = quick(train, TEST, tmp_path / "a")
    assert [r.score for r in found.rows] == [r.score for r in quick(TRAIN, TEST, tmp_path / "b").rows]
    with pytest.raises(UserError, match="train is a DatasetDict"):
        quick(datasets.DatasetDict({"train": train}), TEST, tmp_path / "c")


def test_frames_are_read_without_importing_what_makes_them() -> None:
    code = "import sys, pretune.data.frames as frames; frames.table_of([{'a': 1}], 't')\n"
    code += "print({*sys.modules} & {'pandas', 'datasets', 'torch'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_best_model_answers_from_its_folder(tmp_path: Path) -> None:
    found = quick(TRAIN, TEST, tmp_path)
    assert found.best is not None and found.best.method == "tfidf"
    said = [answer.label for answer in found.best.answer([row["review"] for row in TEST])]
    best = next(row for row in found.rows if row.seed == found.best.seed)
    assert np.mean([a == row["animal"] for a, row in zip(said, TEST, strict=True)]) == best.score
    assert found.best.answer({"review": "woof bark"})[0].label == "dog"
    loaded = Comparison.load(tmp_path)
    assert loaded == found and loaded.best is not None and loaded.best.answer("meow purr")[0].label == "cat"
    assert "folder" not in found.to_dict()["best"]
    with pytest.raises(UserError, match="came from no folder"):
        made_up().best.answer("meow")  # type: ignore[union-attr]


def test_the_table_has_a_row_for_each_approach_and_size() -> None:
    found = made_up()
    table = found.table()
    assert len(table) == len(found.ranking) and table["mean"].tolist() == [
        rank.mean for rank in found.ranking
    ]
    first = table.iloc[0]
    assert (first["approach"], first["size"]) == ("ULMFiT from novels, adapted", 1000)
    assert first["train_seconds"] == found.cost(found.contenders[0], 1000, "train_seconds")


def test_without_pandas_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="a table needs pandas: pip install pandas"):
        made_up().table()


def test_it_shows_a_short_ranking_and_the_recommendation() -> None:
    found = made_up()
    lines = repr(found).splitlines()
    assert lines[0] == "5 approaches to classification on reviews.csv, with 1,000 labels, 3 seeds"
    assert lines[3].split() == "ULMFiT from novels, adapted 80.0 % 77.5 to 82.4 – 88 s".split()
    assert len(lines) == 10 and lines[-1] == found.recommendation
    assert len({len(line) for line in lines[2:8]}) == 1  # columns stand below one another
    page = found._repr_html_()
    assert page.count("<tr>") == 6 and "80.0 %" in page and escape(found.recommendation) in page
    data = {**found.data, "name": "<b>"}
    assert "&lt;b&gt;" in replace(found, data=data)._repr_html_()


def test_a_long_ranking_is_cut() -> None:
    found = made_up()
    more = [replace(found.ranking[0], start=f"number {i}", mean=0.1) for i in range(7)]
    rows = [replace(found.rows[0], **one.contender._asdict(), size=one.size) for one in more]
    longer = replace(found, ranking=[*found.ranking, *more], rows=[*found.rows, *rows])
    assert "and 2 more" in repr(longer).splitlines() and "<p>and 2 more</p>" in longer._repr_html_()


def test_the_report_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    found = made_up()
    path = found.report(tmp_path / "sub" / "a.html")
    assert path.read_text("utf-8").startswith("<!doctype html>") and found.report(tmp_path / "a.md").is_file()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.md", "sub"]
    with pytest.raises(UsageError, match=r"give a file that ends in \.html"):
        found.report(tmp_path)
