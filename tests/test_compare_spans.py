"""compare for answers, roles and clusters: splits, baselines, sums drawn anew, pictures of errors, best/."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pretune.data.conll import sentence
from pretune.data.documents import document
from pretune.data.samples import Sample
from pretune.data.span_answers import passage_of, question_sample
from pretune.data.splits import same_text
from pretune.errors import UsageError, UserError
from pretune.metrics import answer_errors, coref_errors
from pretune.metrics.buckets import bucket, buckets
from pretune.metrics.span_qa import cmrc, squad
from pretune.runs.asked import ASKED
from pretune.runs.cells import Data
from pretune.runs.compare import Silent, compare
from pretune.runs.comparison import Comparison
from pretune.runs.trained import task_class

PEOPLE, PLACES = ("Ada", "Bob", "Eve", "Kay"), ("Rome", "Oslo", "Paris", "Lima")


def questions(n: int, seed: int) -> list[Sample]:
    """Three on a passage, of which the last has no answer."""
    chance, found = Random(seed), []
    for i in range(n):
        one, other = chance.sample(PEOPLE, 2)
        here, there = chance.sample(PLACES, 2)
        passage = f"Story {seed} {i}. {one} lives in {here} by the sea. {other} works in {there}."
        found += [
            question_sample(f"Where does {one} live?", passage, [here], f"{i}a"),
            question_sample(f"Who works in {there}?", passage, [other], f"{i}b"),
            question_sample("How many cats are there?", passage, (), f"{i}c"),
        ]
    return found


def roles(n: int, seed: int) -> list[Sample]:
    """Two predicates in a sentence."""
    chance, found = Random(seed), []
    for i in range(n):
        one, other = chance.sample(PEOPLE, 2)
        part = sentence([f"x{seed}{i}", ":", one, "saw", other, "and", "left", chance.choice(PLACES)])
        seeing = ("O", "O", "B-ARG0", "B-V", "B-ARG1", "O", "O", "O")
        leaving = ("O", "O", "B-ARG0", "O", "O", "O", "B-V", "B-ARG1")
        found += [
            Sample(f"{i}a", (part,), seeing, (part.words[3],)),
            Sample(f"{i}b", (part,), leaving, (part.words[6],)),
        ]
    return found


def stories(n: int, seed: int) -> list[Sample]:
    chance, found = Random(seed), []
    for i in range(n):
        one, other = chance.sample(PEOPLE, 2)
        lines = [
            ["Story", f"{seed}-{i}", "."],
            ["Then", one, "met", other, "."],
            ["So", other, "saw", one, "."],
        ]
        clusters = [[[4, 4], [11, 11]], [[6, 6], [9, 9]]]
        found.append(replace(document({"sentences": lines, "clusters": clusters}, f"{i}", True), key=f"{i}"))
    return found


MADE: dict[str, Callable[[int, int], list[Sample]]] = {"qa": questions, "srl": roles, "coref": stories}


def line_of(task: str, one: Sample) -> dict[str, Any]:
    """A sample as its files have it."""
    if task == "qa":
        return {"question": one.texts[0], "passage": one.texts[1], "answers": [x.text for x in one.gold]}
    if task == "srl":
        words = [one.texts[0][a:b] for a, b in one.parts[0].words]
        return {"words": words, "predicate": one.parts[0].words.index(one.marks[0]), "labels": [*one.gold]}
    return {"text": one.texts[0], "clusters": one.gold}


def write(path: Path, task: str, samples: list[Sample]) -> Path:
    path.write_text("".join(json.dumps(line_of(task, one)) + "\n" for one in samples), encoding="utf-8")
    return path


# Errors, by hand


def test_numbers_fall_into_groups() -> None:
    assert [bucket(n, (1, 2, 3, 6)) for n in (0, 1, 2, 3, 5, 6, 60)] == [
        "1",
        "1",
        "2",
        "3–5",
        "3–5",
        "6+",
        "6+",
    ]
    assert buckets((0, 5, 10)) == ["0–4", "5–9", "10+"]


def test_answers_are_right_in_part_wrong_or_none() -> None:
    golds = [["the red car"], ["Rome", "in Rome"], ["two"], ["nine"], [], []]
    said = ["red car", "in Rome or so", "three", "", "", "Oslo"]
    has, lacks = answer_errors.outcomes(golds, said, squad)
    assert has == (4, 1, 1, 1, 1) and lacks == (2, 0, 0, 1, 1)
    found = {x.name: (x.questions, x.exact_match) for x in answer_errors.by_length(golds, said, squad)}
    assert found == {"1": (3, 0.0), "2": (1, 1.0), "no answer": (2, 0.5)}  # articles do not count
    asked = ["What is it?", "In which town?", "How many?", "How much?", "When and why?", "Name it."]
    groups = answer_errors.by_question(asked, golds, said, squad)
    assert [(x.name, x.questions) for x in groups] == [
        ("how many, how much", 2),
        ("when", 1),
        ("which", 1),
        ("what", 1),
        ("other", 1),
    ]
    assert groups[2].f1 == pytest.approx(2 * 2 / (2 + 4))
    assert (
        answer_errors.asks("他为什么去那里？") == "why"
        and answer_errors.asks("总共有多少人？") == "how many, how much"
    )
    asked = [
        "他在哪一年出生？",
        "这部小说在哪部电影中？",
        "他住在哪？",
        "几何学的创始人是谁？",
        "李何何时去世？",
    ]
    assert [answer_errors.asks(x) for x in asked] == ["when", "which", "where", "who", "when"]
    assert answer_errors.by_length([["北京市"]], ["北京"], cmrc)[0].name == "3–4"


def test_clusters_and_links_are_found_by_size_and_distance() -> None:
    gold = [[[0, 10, 30], [5, 60], [7]], [[1, 2]]]
    said = [[[0, 10], [30, 5], [60]], [[1, 2]]]
    sizes = coref_errors.by_size(gold, said)
    assert [x[:3] for x in sizes] == [("1", 1, 1), ("2", 2, 4), ("3–5", 1, 3)]
    assert [x.found for x in sizes] == [0.0, 1.0, 1.0]
    assert [x.together for x in sizes] == pytest.approx([0.0, (1 + 2) / 4, (4 + 1) / 3 / 3])
    links = coref_errors.by_distance(gold, said, lambda document, before, after: after - before)
    assert links == [("0–4", 1, 1.0), ("10–19", 1, 1.0), ("20–49", 1, 0.0), ("50–99", 1, 0.0)]


# Data


@pytest.mark.parametrize("task", MADE)
def test_what_belongs_together_is_drawn_and_held_out_together(task: str) -> None:
    samples, together = MADE[task](12, 1), ASKED[task].together
    assert together is not None and together is {"qa": passage_of}.get(task, same_text)
    units = {together(x) for x in samples}
    each = len(samples) // len(units)
    data = Data(tuple(samples), (), ASKED[task].kind(samples), 0.25, task)
    train, valid = data.drawn(8 * each, 3)
    assert len(train) + len(valid) == 8 * each
    assert len({together(x) for x in valid}) == 2 and len(valid) == 2 * each
    assert not {together(x) for x in train} & {together(x) for x in valid}
    assert {x.key for x in train} <= {x.key for some in data.drawn(12 * each, 3) for x in some}


# The whole


class Kept(Silent):
    """Counts trainings."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def finished(self, cell: Any) -> None:
        self.seen.append(cell.id)


EXPECTED = {
    "qa": ("f1", "questions", "window", ["What is answered", "Answers of which", "Which questions"]),
    "srl": ("argument_f1", "predicates", "rolecounts", ["Which roles", "Arguments of which"]),
    "coref": ("conll_f1", "documents", "strings", ["Clusters of which", "Links over", "Mentions of"]),
}


@pytest.mark.parametrize("task", MADE)
def test_methods_are_compared_and_the_best_answers(task: str, tmp_path: Path) -> None:
    from pretune.cli import app

    train, test = (write(tmp_path / f"{k}.jsonl", task, MADE[task](8, k)) for k in (1, 2))
    out, (metric, counted, baseline, titles) = tmp_path / "out", EXPECTED[task]
    command = [
        "compare",
        train,
        "--test",
        test,
        "--task",
        task,
        "--sizes",
        "all",
        "--seeds",
        "1",
        "--jobs",
        "1",
    ]
    command += ["--methods", f"{baseline},wordvectors", "--encoder-size", "tiny", "--unlabelled", "none"]
    command += ["--out", out, "recipe.epochs=1", "-q"]
    result = CliRunner().invoke(app, [*map(str, command)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    found = Comparison.load(out)
    assert found.metric == metric and found.counted == counted and counted in result.output
    first = found.ranking[0]
    assert first.method == baseline and 0.4 < first.low <= first.mean <= first.high
    assert [one.title.startswith(x) for one, x in zip(found.breakdowns, titles, strict=True)] == [True] * len(
        titles
    )
    assert (found.confusion is not None) == (task == "srl")
    for name in ("report.html", "report.md"):
        text = (out / name).read_text(encoding="utf-8")
        assert all(one.title in text and one.how in text for one in found.breakdowns) and counted in text
    cells = [json.loads(path.read_text()) for path in (out / "cells").iterdir()]
    samples = MADE[task](8, 2)
    kind = ASKED[task].kind(samples)
    scoring = task_class(task).of([*MADE[task](8, 1), *samples], kind)
    for cell in cells:
        assert scoring.scores_of(np.array(cell["tallies"]).sum(0))[metric] == pytest.approx(
            cell["row"]["score"]
        )
        assert len(cell["chances"]) == len(samples)
    predicted = CliRunner().invoke(app, ["predict", str(out / "best"), str(test)])
    assert predicted.exit_code == 0, predicted.output
    assert len(predicted.stdout.splitlines()) == len(samples)
    scored = CliRunner().invoke(app, ["evaluate", str(out / "best"), str(test)])
    assert scored.exit_code == 0, scored.output
    assert found.best is not None and found.best.method == baseline
    again = Kept()
    same = compare(  # from Python, the rest of what an interrupted one left
        train,
        test,
        task=task,
        methods=[baseline],
        sizes=["all"],
        seeds=1,
        jobs=1,
        unlabelled="none",
        out=out,
        watch=again,
    )
    assert again.seen == [] and same.rows == [row for row in found.rows if row.method == baseline]


def test_a_step_of_coreference_learns_from_one_document_unless_told_otherwise(tmp_path: Path) -> None:
    from pretune.runs.entries import entries
    from pretune.runs.options import Options
    from pretune.runs.problem import read

    reading: dict[str, Any] = dict.fromkeys(("text", "label", "choices"), ())
    reading |= {"format": None, "encoding": "utf-8", "label_separator": None}
    for settings, size in (({}, 1), ({"recipe": {"batch_size": 3}}, 3)):
        options = Options(("strings", "wordvectors"), seeds=1, encoder_size="tiny", settings=settings)
        problem = read(stories(8, 1), stories(4, 2), "none", None, reading, None, options, "coref")
        found, _ = entries(options, problem, [], None, tmp_path)
        assert [x.setting.recipe.get("batch_size") for x in found] == [None, size]


def test_settings_of_baselines_are_heeded_or_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": 1, "jobs": 1, "sizes": ["all"], "unlabelled": "none"}
    said = compare(
        stories(8, 1),
        stories(4, 2),
        task="coref",
        methods=["strings"],
        settings={"strings": {"task": {"singletons": True}}},
        out=tmp_path / "a",
        **options,
    )
    assert said.rows[0].scores["mention_f1"] > 0.9
    for settings, message in (
        ({"strings": {"task": {"hidden": 3}}}, "a setting of strings is 'task.hidden'"),
        ({"strings": {"recipe": {"epochs": 3}}}, "a setting of strings is 'recipe.epochs'"),
        ({"strings": {"share": 3}}, "a setting of strings is 'share'"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(
                stories(8, 1),
                task="coref",
                methods=["strings"],
                settings=settings,
                out=tmp_path / "b",
                **options,
            )
    with pytest.raises(UsageError, match="tfidf is no baseline of qa, which has window"):
        compare(questions(4, 1), task="qa", methods=["tfidf"], out=tmp_path / "b")
    with pytest.raises(UserError, match="srl needs one text with words"):
        compare(stories(8, 1), task="srl", out=tmp_path / "b")
    with pytest.raises(UserError, match="coref needs one text"):
        compare(questions(4, 1), task="coref", out=tmp_path / "b")
