"""Spans in JSON lines are read as words with tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pretune.cli import app
from pretune.data.json_spans import read_spans, read_tagged
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError
from pretune.metrics.tagging import chunks


def lines(folder: Path, *records: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    said = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in records]
    path.write_text("\n".join(said), encoding="utf-8")
    return path


def spans_of(sample: Sample) -> list[tuple[int, int, str]]:
    words = sample.parts[0].words
    return [(words[a].start, words[b - 1].end, kind) for a, b, kind in chunks(sample.gold, "iob2")]


TEXT = "Ann Lee, of New York."


@pytest.mark.parametrize(
    "record",
    [
        {"text": TEXT, "spans": [[0, 7, "PER"], [12, 20, "LOC"]]},
        {"sentence": TEXT, "entities": [[12, 20, "LOC"], [0, 7, "PER"]]},
        {
            "text": TEXT,
            "label": [{"start": 0, "end": 7, "label": "PER"}, {"start": 12, "end": 20, "type": "LOC"}],
        },
        {"text": TEXT, "label": {"PER": {"Ann Lee": [[0, 6]]}, "LOC": {"New York": [[12, 19]]}}},
    ],
)
def test_every_layout_says_the_same(record: dict[str, Any], tmp_path: Path) -> None:
    found = read_tagged(lines(tmp_path, record))
    assert found.layout == "jsonl" and found.samples[0].key == "a.jsonl:1"
    assert spans_of(found.samples[0]) == [(0, 7, "PER"), (12, 20, "LOC")]
    assert found.samples[0].gold == ("B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O")
    assert read_spans(tmp_path / "a.jsonl", text=[found.words_column], label=[found.tags_column]) == found


def test_words_are_cut_where_a_span_ends_within_one(tmp_path: Path) -> None:
    (one,) = read_tagged(lines(tmp_path, {"text": "pre-war Paris2024 ok", "spans": [[8, 13, "LOC"]]})).samples
    assert spans_of(one) == [(8, 13, "LOC")]
    (chinese,) = read_tagged(lines(tmp_path, {"text": "我在上海iPhone店", "spans": [[2, 4, "地"]]})).samples
    assert chinese.gold[:4] == ("O", "O", "B-地", "I-地") and len(chinese.gold) == 6


def test_of_overlapping_spans_the_longest_is_kept_and_said(tmp_path: Path) -> None:
    record = {"text": TEXT, "spans": [[12, 15, "X"], [12, 20, "LOC"], [16, 21, "Y"], [12, 20, "LOC"]]}
    found = read_tagged(lines(tmp_path, record, {"text": "None here", "spans": []}))
    assert spans_of(found.samples[0]) == [(12, 20, "LOC")] and set(found.samples[1].gold) == {"O"}
    assert "left out (2)" in found.notes[-1]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"text": TEXT, "spans": [[0, 99, "PER"]]},
            r"a.jsonl:2: the span 0–99 does not lie",
        ),
        ({"text": TEXT, "spans": [[3, 4, "PER"]]}, "of white space alone"),
        ({"text": TEXT, "spans": [[0, 3, ""]]}, "a name is needed"),
        ({"text": TEXT, "spans": [[0, 3]]}, r"write \[start, end, kind\]"),
        ({"text": TEXT, "spans": "PER"}, r"where spans are needed"),
        ({"text": TEXT}, "where spans are needed"),
        ({"text": 3, "spans": []}, "a text is needed"),
        ({"text": TEXT, "spans": {"PER": {"Ann": [[0, 3]]}}}, "characters 0 to 3 are 'Ann ', not 'Ann'"),
        ({"text": TEXT, "spans": {"PER": [[0, 3]]}}, r"first, last"),
        ("{", "not valid JSON"),
    ],
)
def test_mistakes_name_the_line(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_tagged(lines(tmp_path, {"text": "a", "spans": []}, record))


def test_keys_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path, {"content": "a", "spans": []})
    with pytest.raises(UserError, match=r"none of the keys text, sentence, only content, spans.*--text"):
        read_tagged(path)
    assert read_tagged(path, text=["content"]).samples[0].texts == ("a",)
    with pytest.raises(UserError, match="no key 'ents'"):
        read_tagged(path, text=["content"], label=["ents"])
    with pytest.raises(UsageError, match="2 keys"):
        read_tagged(path, text=["a", "b"])


def test_a_tagger_learns_from_spans_and_answers_in_them(tmp_path: Path) -> None:
    names = ["Ann", "Bob", "Cy"]
    records = [
        {
            "text": f"{a} saw {b}{' again' * i}.",
            "spans": [[0, len(a), "P"], [len(a) + 5, len(a) + 5 + len(b), "P"]],
        }
        for i, (a, b) in enumerate((a, b) for _ in range(3) for a in names for b in names)
    ]
    file, model = lines(tmp_path, *records), tmp_path / "model"
    options = "--method wordvectors --device cpu -q codec.min_count=1 recipe.epochs=30 task.scheme=bioes"

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(x) for x in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    run("finetune", "tagging", file, "--out", model, *options.split())
    scored = tmp_path / "scores.json"
    run("evaluate", model, file, "--out", scored, "-q")
    assert json.loads(scored.read_text())["scores"]["span_f1"] > 0.9
    said = [json.loads(line) for line in run("predict", model, file, "-q").splitlines()]
    wanted = [[{"start": s, "end": e, "label": k} for s, e, k in one["spans"]] for one in records]
    assert sum(a["spans"] == b for a, b in zip(said, wanted, strict=True)) > 20
    again = lines(tmp_path, *said, name="said.jsonl")  # what predict writes is read as what it says
    assert [spans_of(x) for x in read_tagged(again).samples] == [
        [(x["start"], x["end"], x["label"]) for x in one["spans"]] for one in said
    ]
    conll = tmp_path / "b.conll"
    conll.write_text("Ann B-P\nsaw O\n", encoding="utf-8")
    run("evaluate", model, conll, "-q")


def test_published_chinese_names_come_out_as_they_went_in(shared: Callable[[str], Path]) -> None:
    file = shared("data/cluener/dev.json")
    found = read_tagged(file)
    with file.open(encoding="utf-8") as stream:
        for sample, record in zip(found.samples, map(json.loads, stream), strict=True):
            every = {
                (first, last + 1, kind)
                for kind, mentions in record["label"].items()
                for places in mentions.values()
                for first, last in places
            }
            assert set(spans_of(sample)) <= every
    kept, dropped = sum(len(spans_of(s)) for s in found.samples), 0
    if "left out" in found.notes[-1]:
        dropped = int(found.notes[-1].split("(")[1].split(")")[0])
    assert kept + dropped == 3072
    with pytest.raises(UserError, match=r"test.json:1: none of the keys spans"):
        read_tagged(file.with_name("test.json"))


def test_published_names_are_read_in_the_scheme_that_they_have(shared: Callable[[str], Path]) -> None:
    from pretune.metrics.tagging import scheme_of

    wnut = read_tagged(shared("data/wnut17/emerging.dev.conll")).samples
    assert len(wnut) == 1009 and scheme_of(s.gold for s in wnut) == "iob2"
    resume = read_tagged(shared("data/resume-ner/dev.char.bmes")).samples
    assert len(resume) == 463 and scheme_of(s.gold for s in resume) == "bmes"
