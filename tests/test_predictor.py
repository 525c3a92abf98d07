"""Predictor and evaluate: what a saved folder says, and how well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pretune
import tiny
from pretune.data.samples import sample
from pretune.errors import UserError
from pretune.runs.predictor import Predictor, evaluate, evaluation
from pretune.runs.run import finetune
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting

SAMPLES = tiny.labelled(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predictor") / "model"
    task = Classification.of(SAMPLES)
    recipe = tiny.recipe("full", epochs=10)
    model, _ = finetune(
        tiny.start("wordvectors"), task, recipe, SAMPLES, [], Fitting(device="cpu", quiet=True)
    )
    model.save(out, {"data": {"text": ["review"], "label": ["stars"]}})
    return out


def test_the_public_names_are_there_and_importing_them_is_lazy(folder: Path) -> None:
    assert pretune.Predictor.load(folder).answer("good film")[0].label == "yes"
    assert pretune.Predictor is Predictor
    assert "Predictor" in dir(pretune)
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = pretune.Predicter


def test_every_way_to_ask_gives_the_same_answer(folder: Path) -> None:
    predictor = Predictor.load(folder)
    one = predictor.answer("good film")
    assert len(one) == 1
    for question in ({"review": "good film", "id": 3}, {"text": "good film"}, sample("good film")):
        assert predictor.answer(question) == one
        assert [x.label for x in predictor.answer([question, "a bad film"])] == ["yes", "no"]
    assert predictor.answer([]) == []
    assert predictor.answer(("good film", "bad book")) == predictor.answer([["good film", "bad book"]])


@pytest.mark.parametrize("question", [3, None, {"body": "x"}, {"review": 3}, (), [3]])
def test_what_is_no_sample_is_refused(folder: Path, question: object) -> None:
    with pytest.raises(UserError, match=r"a sample is a text|a dict needs the text under review"):
        Predictor.load(folder).answer([question])  # type: ignore[list-item]


def test_answers_keep_the_order_of_the_questions(folder: Path) -> None:
    predictor = Predictor.load(folder)
    texts = tiny.texts(30, seed=9, length=40)
    for text, together in zip(texts, predictor.answer(texts, batch_size=4), strict=True):
        assert together.scores == pytest.approx(predictor.answer(text)[0].scores, abs=1e-5)


def test_evaluation_scores_with_intervals_and_confusions(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    rows = [f'"{s.texts[0]}",{s.gold}' for s in SAMPLES] + ["good film,perhaps"]
    file.write_text("review,stars\n" + "\n".join(rows) + "\n")
    found = evaluate(folder, file)
    assert found.samples == 21
    assert found.scores["accuracy"] == pytest.approx(20 / 21)
    for name, score in found.scores.items():
        low, high = found.intervals[name]
        assert low <= score <= high
    assert found.confusion is not None
    labels, counts = found.confusion
    assert labels == ["no", "yes", "perhaps"]
    assert counts == [[10, 0, 0], [0, 10, 0], [0, 1, 0]]
    assert any("perhaps" in note for note in found.notes)
    assert found.labels["perhaps"] == (0, 0, 0, 1) and found.labels["yes"].recall == 1
    assert json.loads(json.dumps(found.to_dict()))["samples"] == 21


def test_numbers_are_evaluated_without_confusions() -> None:
    samples = [replace(s, gold=float(i)) for i, s in enumerate(SAMPLES)]
    task = Classification.of(samples, "number")
    quiet = Fitting(device="cpu", quiet=True)
    model, _ = finetune(tiny.start("wordvectors"), task, tiny.recipe("full"), samples, [], quiet)
    found = evaluation(model, samples)
    assert found.confusion is None and found.labels == {}
    assert found.intervals.keys() == found.scores.keys()
