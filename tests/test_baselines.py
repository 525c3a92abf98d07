"""Baselines of spans, roles and clusters: what they answer by hand, and that a saved folder answers alike."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pretune.data.conll import sentence
from pretune.data.documents import document
from pretune.data.samples import Sample
from pretune.data.span_answers import question_sample
from pretune.errors import UserError
from pretune.runs import role_counts, same_strings, sliding_window
from pretune.runs.run import load_trained
from pretune.tasks.base import Task
from pretune.tasks.coref import Coref
from pretune.tasks.span_qa import SpanQA
from pretune.tasks.srl import SemanticRoles

HOTEL = "The hotel was clean. Breakfast cost nine euros at the bar. We would come again."
QUESTIONS = [
    question_sample("What did breakfast cost?", HOTEL, ["nine euros"], "a"),
    question_sample("Was the hotel clean?", HOTEL, ["The hotel was clean"], "b"),
    question_sample("Who painted Guernica?", HOTEL, (), "c"),
    question_sample("Where is breakfast?", HOTEL, ["at the bar"], "d"),
]


def about(words: str, predicate: int, tags: str, key: str = "") -> Sample:
    part = sentence(words.split())
    return Sample(key, (part,), tuple(tags.split()), (part.words[predicate],))


ROLES = [
    about("Ada reads books", 1, "B-ARG0 B-V B-ARG1", "1"),
    about("Bob reads long letters", 1, "B-ARG0 B-V B-ARG1 I-ARG1", "2"),
    about("today Ada sings", 2, "B-TMP B-ARG0 B-V", "3"),
    about("Ada sings today", 1, "B-ARG0 B-V B-TMP", "4"),
]


def story(key: str, lines: list[list[str]], *clusters: list[int]) -> Sample:
    """Clusters are the numbers of words that are mentions."""
    spans = [[[word, word] for word in some] for some in clusters]
    return replace(document({"sentences": lines, "clusters": spans}, key, labelled=True), key=key)


STORIES = [
    story("1", [["Ada", "saw", "Bob", "."], ["She", "waved", "to", "Bob", "."]], [0, 4], [2, 7]),
    story("2", [["Ada", "left", "."], ["She", "met", "Eve", "."], ["She", "sang", "."]], [0, 3], [5, 7]),
    story("3", [["Then", "Ada", "and", "Ada", "left", "it", "."]], [1, 3]),
]


def test_the_window_lies_beside_the_words_of_the_question() -> None:
    """Of a question of 4 words a neighbour counts fully, each word farther away a quarter less."""
    task = SpanQA.of(QUESTIONS)
    best = sliding_window.guesses_of(task, QUESTIONS[0], 2)[0]
    assert HOTEL[slice(*best.span)] == "nine euros"  # cost stands beside it, breakfast one word before
    word, absent = math.log(2), math.log(2)  # what a word counts that the passage has once, or lacks
    assert best.score == pytest.approx((word + 0.75 * word) / (2 * word + 2 * absent))
    whole = sliding_window.guesses_of(task, QUESTIONS[1], 0)[0]
    assert HOTEL[slice(*whole.span)] == "The hotel was clean"
    the = math.log(1 + 1 / 2)
    assert whole.score == pytest.approx(1.0) and the < word
    short = sliding_window.guesses_of(task, QUESTIONS[1], 21)  # no sentence has so many words
    assert {HOTEL[slice(*x.span)].split()[0] for x in short} == {"The", "Breakfast", "We"}


def test_the_window_learns_its_width_and_where_to_answer_nothing() -> None:
    task = SpanQA.of(QUESTIONS)
    fitted = sliding_window.fit(task, [QUESTIONS[0]], QUESTIONS[1:])
    assert fitted.model.width == 2
    assert fitted.answers == fitted.model.answers(QUESTIONS[1:])
    assert fitted.answers[1].text == "" and fitted.scores["accuracy_without_answer"] == 1
    assert fitted.model.task.null_threshold is not None
    given = sliding_window.fit(replace(task, null_threshold=9.0), [QUESTIONS[0]], QUESTIONS[1:])
    assert given.model.task.null_threshold == 9.0 and given.answers[1].text
    chinese = [question_sample("谁写了红楼梦？", "红楼梦是曹雪芹写的。故事很长。", ["曹雪芹"])]
    assert sliding_window.fit(SpanQA.of(chinese), chinese, chinese).scores["f1"] > 0.5
    assert (
        sliding_window.fit(SpanQA.of(QUESTIONS), [], QUESTIONS)
        .model.answers([question_sample("?", "…", [])])[0]
        .text
        == ""
    )


def test_roles_are_what_words_had_there() -> None:
    task = SemanticRoles.of(ROLES)
    model = role_counts.counted(task, ROLES)
    (said,) = model.answers([about("Eve reads books today", 1, "O O O O")])
    assert said.labels == ("B-ARG0", "B-V", "B-ARG1", "B-TMP")
    shares = dict(zip(task.labels, said.words[0][1], strict=True))  # type: ignore[index]
    # of 13 words 6 tags; in place -1 there were 4, all ARG0; "eve" never was
    any_ = {"B-ARG0": 4, "B-ARG1": 2, "B-TMP": 2, "B-V": 4, "I-ARG1": 1}
    general = (any_["B-ARG0"] + 5 * (1 / 5)) / (13 + 5)
    assert shares["B-ARG0"] == pytest.approx((4 + 1 * general) / (4 + 1))
    many = [about(f"{'very ' * (i % 7)}long letters reads Eve", 2 + i % 7, "O O O O") for i in range(150)]
    for i in (0, 6, 80, 149):  # decoded some at a time, in an order of their own
        assert model.answers(many)[i] == model.answers([many[i]])[0]
    (long,) = model.answers([about("long letters reads Eve", 2, "O O O O")])
    assert (
        long.labels is not None and long.labels[0][:2] != "I-"
    )  # the likeliest alone, but nothing begins by I


def test_strings_are_mentions_and_the_same_as_training_has_them() -> None:
    task = Coref.of(STORIES)
    model = same_strings.counted(task, STORIES)
    assert model.mentions["She"] == [3, 3] and model.mentions["Ada"] == [4, 4]
    assert model.links == {"bob": [1, 1], "she": [0, 1], "ada": [1, 1]}
    assert "it" not in model.mentions and model.names[0] > model.names[1] / 2
    new = story("4", [["Ada", "met", "Dr.", "Kay", "."], ["She", "and", "Kay", "knew", "She", "."]], [0, 3])
    (said,) = model.answers([new])
    text = new.texts[0]
    assert [[text[a:b] for a, b in some] for some in said.clusters or ()] == [["Dr. Kay", "Kay"]]
    alone = replace(model, task=replace(task, singletons=True)).answers([new])[0]
    assert sum(len(some) == 1 for some in alone.clusters or ()) == 3  # Ada, and She twice


@pytest.mark.parametrize(
    ("module", "task", "samples"),
    [
        (sliding_window, SpanQA.of(QUESTIONS), QUESTIONS),
        (role_counts, SemanticRoles.of(ROLES), ROLES),
        (same_strings, Coref.of(STORIES), STORIES),
    ],
    ids=["window", "rolecounts", "strings"],
)
def test_a_saved_baseline_answers_as_it_did(
    module: ModuleType, task: Task, samples: list[Sample], tmp_path: Path
) -> None:
    fitted = module.fit(task, samples[:-1], samples[-1:])
    again = load_trained_after(fitted.model, tmp_path / "m")
    bare = [replace(sample, gold=None) for sample in samples]
    assert again.answers(bare) == fitted.model.answers(samples)  # gold is not looked at
    assert again.parameters == fitted.model.parameters > 0 and again.answers([]) == []
    (tmp_path / "m" / "counts.json").write_text(json.dumps({"width": 4}))
    with pytest.raises(UserError, match=r"counts\.json cannot be read"):
        load_trained(tmp_path / "m")


def load_trained_after(model, folder: Path):  # type: ignore[no-untyped-def]
    model.save(folder, {})
    return load_trained(folder)
