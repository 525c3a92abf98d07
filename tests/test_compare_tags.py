"""compare for tagging: the baseline, intervals of F1 from drawn sentences, pictures of errors, best/."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pretune.data.conll import sentence
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError
from pretune.metrics.bootstrap import interval_of, interval_of_sums, of_sums, resampled, two_sided
from pretune.metrics.tag_errors import by_length, confusion
from pretune.metrics.tagging import scores_of, tallies
from pretune.runs import unigram
from pretune.runs.compare import compare
from pretune.runs.comparison import Comparison
from pretune.runs.run import load_trained
from pretune.tasks.tagging import Tagging

NAMES = {"Ada": ["B-PER"], "Bob Lee": ["B-PER", "I-PER"], "New York": ["B-LOC", "I-LOC"], "Rome": ["B-LOC"]}


def sentences(n: int, seed: int) -> list[Sample]:
    chance, found = Random(seed), []
    for i in range(n):
        words, tags = [f"x{i}"], ["O"]
        for name in chance.choices([*NAMES], k=2):
            other = chance.choice(["saw", "left", "likes"])
            words += [*name.split(), other]
            tags += [*NAMES[name], "O"]
        found.append(Sample(f"{seed}:{i}", (sentence(words),), tuple(tags)))
    return found


def write(path: Path, samples: list[Sample]) -> Path:
    blocks = []
    for one in samples:
        words = [one.parts[0].text[a:b] for a, b in one.parts[0].words]
        blocks.append("".join(f"{w} {t}\n" for w, t in zip(words, one.gold, strict=True)))
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def test_the_baseline_says_each_word_s_most_frequent_tag() -> None:
    train = [
        Sample("1", (sentence(["the", "run", "ended"]),), ("D", "N", "V")),
        Sample("2", (sentence(["they", "run"]),), ("P", "V")),
        Sample("3", (sentence(["a", "run", "jumped", "Rome"]),), ("D", "N", "V", "X")),
    ]
    model = unigram.counted(Tagging.of(train), train)
    (said,) = model.answers([Sample("4", (sentence(["run", "walked", "Dome", "7"]),))])
    assert said.labels is not None
    assert said.labels == (
        "N",
        "V",
        "X",
        "D",
    )  # by the word, by -ed, by -ome; the first of equals


def test_the_baseline_does_not_see_validation_before_it_is_scored(tmp_path: Path) -> None:
    train, valid = sentences(6, 1), [Sample("v", (sentence(["Oslo", "saw"]),), ("B-LOC", "O"))]
    model, scores, answers = unigram.fit(Tagging.of([*train, *valid]), train, valid)
    assert answers[0].labels == ("O", "O") and scores["span_f1"] < 1
    assert model.answers(valid)[0].labels == ("B-LOC", "O")
    model.save(tmp_path / "m", {})
    assert load_trained(tmp_path / "m").answers(train) == model.answers(train)
    (tmp_path / "m" / "counts.json").write_text("{}")
    with pytest.raises(UserError, match=r"counts\.json"):
        load_trained(tmp_path / "m")


def test_intervals_of_sums_are_those_of_the_whole_metric() -> None:
    """Drawn sentences are scored together: F1 is no mean of theirs."""
    chance = Random(0)
    golds = [chance.choices(["O", "B-X", "I-X"], k=5) for _ in range(15)]
    runs = [[chance.choices(["O", "B-X", "I-X"], k=5) for _ in golds] for _ in range(3)]

    def f1(true: Any, said: Any) -> float:
        return scores_of(tallies(true, said, "iob2").sum(0), "iob2")["span_f1"]

    def figure(total: Any) -> float:
        return scores_of(total, "iob2")["span_f1"]

    tables = np.array([tallies(golds, run, "iob2") for run in runs])
    whole = interval_of(f1, golds, runs, resamples=300)
    np.testing.assert_allclose(interval_of_sums(figure, tables, resamples=300), whole)
    mean = np.mean([f1([gold], [said]) for gold, said in zip(golds, runs[0], strict=True)])
    assert abs(mean - figure(tables[0].sum(0))) > 0.01
    perfect = np.array([tallies(golds, golds, "iob2")] * 2)
    runs = {"a": [of_sums(figure, one) for one in perfect], "b": [of_sums(figure, one) for one in tables]}
    drawn = resampled({who: dict(enumerate(found)) for who, found in runs.items()}, 999)
    assert two_sided(drawn["a"] - drawn["b"]) == pytest.approx(0.002)


def test_spans_are_confused_where_they_have_the_same_words() -> None:
    golds = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    said = [["B-LOC", "I-LOC", "O", "O"], ["B-PER", "B-LOC"]]
    labels, counts = confusion(golds, said, "iob2")
    assert labels == ["LOC", "PER", "no span"]
    assert counts == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert [(x.length, x.true, x.said, x.f1) for x in by_length(golds, said, "iob2")] == [
        ("1", 2, 2, 0.5),
        ("2", 1, 1, 0.0),
    ]
    assert by_length([["B-X"] + ["I-X"] * 6], [["O"] * 7], "iob2")[0].length == "5+"
    assert confusion([["N", "V"]], [["N", "N"]], "plain") == (["N", "V"], [[1, 0], [1, 0]])


def test_taggers_are_compared_and_the_best_answers(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.conll", sentences(60, 1)), write(tmp_path / "b.conll", sentences(30, 2))
    out = tmp_path / "out"
    command = ["compare", train, "--test", test, "--task", "tagging", "--sizes", "20,40", "--seeds", "2"]
    command += ["--methods", "unigram,wordvectors", "--encoder-size", "tiny", "--jobs", "1", "--out", out]
    command += ["--unlabelled", "none", "recipe.epochs=1", "-q"]
    from pretune.cli import app

    result = CliRunner().invoke(app, [*map(str, command)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "40 sentences" in result.output
    found = Comparison.load(out)
    assert found.metric == "span_f1" and found.counted == "sentences"
    first = found.ranking[0]
    assert first.method == "unigram" and first.low <= first.mean <= first.high and first.mean > 0.9
    assert found.tests[0].p_mcnemar is None and found.tests[0].p_bootstrap < 0.01
    assert found.confusion is not None and found.confusion["labels"] == ["LOC", "PER", "no span"]
    assert {x["length"] for x in found.lengths} >= {"1", "2"}
    for cell in map(json.loads, (path.read_text() for path in (out / "cells").iterdir())):
        total = np.array(cell["tallies"]).sum(0)
        assert scores_of(total, "iob2")["span_f1"] == pytest.approx(cell["row"]["score"])
    for name in ("report.html", "report.md"):
        text = (out / name).read_text(encoding="utf-8")
        assert "no span" in text and "5+" not in text and "sentences" in text
    assert found.hardest and "of 4 trainings" in found.hardest[0].said
    said = CliRunner().invoke(app, ["predict", str(out / "best"), str(test)])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout.splitlines()[0])["spans"]
    scored = CliRunner().invoke(app, ["evaluate", str(out / "best"), str(test)])
    assert scored.exit_code == 0, scored.output


def test_parts_of_speech_are_compared_by_words_not_by_whole_sentences(tmp_path: Path) -> None:
    plain = [
        Sample(s.key, s.parts, tuple({"O": "V"}.get(tag, "N") for tag in s.gold)) for s in sentences(40, 1)
    ]
    found = compare(plain, task="tagging", methods=["unigram"], sizes=[20], seeds=1, jobs=1, out=tmp_path)
    assert found.metric == "accuracy" and found.rows[0].score > 0.8
    assert found.ranking[0].low > 0.5 and not found.lengths
    assert found.confusion is not None and found.confusion["labels"] == ["N", "V"]


def test_settings_of_the_task_reach_every_method(tmp_path: Path) -> None:
    options: dict[str, Any] = {"task": "tagging", "sizes": [20], "seeds": 1, "jobs": 1, "scratch": True}
    options |= {"methods": ["unigram", "wordvectors"], "unlabelled": "none", "encoder_size": "tiny"}
    words = {"task": {"scheme": "plain"}, "recipe": {"epochs": 1}}
    found = compare(sentences(40, 1), settings=words, out=tmp_path / "words", **options)
    assert found.metric == "accuracy" and not found.lengths and "B-LOC" in found.data["labels"]
    crf = {"task": {"crf": True, "scheme": "bioes"}, "recipe": {"epochs": 1}}
    assert compare(sentences(40, 1), settings=crf, out=tmp_path / "crf", **options).metric == "span_f1"
    with pytest.raises(UsageError, match="lead to different metrics"):
        compare(sentences(40, 1), settings={"wordvectors": words}, out=tmp_path / "both", **options)


def test_a_test_file_of_another_layout_is_read_as_it_lies(tmp_path: Path) -> None:
    train = write(tmp_path / "a.conll", sentences(24, 1))
    lines = [{"text": "Ada saw Rome", "spans": [[0, 3, "PER"], [8, 12, "LOC"]]}] * 6
    other = tmp_path / "b.jsonl"
    other.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    texts = tmp_path / "more.csv"
    texts.write_text("text\nBob Lee left New York\nAda saw Rome again\n", encoding="utf-8")
    found = compare(
        train,
        other,
        task="tagging",
        methods=["unigram"],
        sizes=[24],
        seeds=1,
        jobs=1,
        unlabelled=[texts],
        out=tmp_path / "out",
    )
    assert found.rows[0].score == 1.0


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    data = sentences(20, 1)
    with pytest.raises(UsageError, match="tfidf is no baseline of tagging, which has unigram"):
        compare(data, task="tagging", methods=["tfidf"], out=tmp_path)
    with pytest.raises(UsageError, match="unigram is no baseline of classification"):
        compare([replace(s, gold=s.key[-1]) for s in data], methods=["unigram"], out=tmp_path)
    with pytest.raises(UsageError, match="--kind is for --task classification"):
        compare(data, task="tagging", kind="one", out=tmp_path)
    with pytest.raises(UserError, match="a tuple with a tag for each"):
        compare([Sample("1", s.parts, "a") for s in data], task="tagging", out=tmp_path)
