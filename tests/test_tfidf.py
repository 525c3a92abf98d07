"""The TF-IDF baseline: what it learns, what it answers, what it saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretune.data.samples import Sample, sample
from pretune.errors import UserError
from pretune.runs import tfidf
from pretune.runs.tfidf import TfIdfConfig, for_language
from pretune.tasks.classification import Classification

CATS = ["the cat purrs", "a cat meows", "cats purr and meow", "meow said the cat", "purr purr purr"]
DOGS = ["the dog barks", "a dog growls", "dogs bark and growl", "woof said the dog", "bark bark bark"]
ONE = [sample(x, gold="cat") for x in CATS] + [sample(x, gold="dog") for x in DOGS]
VALID = [sample("the cat meows", gold="cat"), sample("dogs bark", gold="dog")]


def numbers() -> list[Sample]:
    return [sample(" ".join(["good"] * k + ["bad"] * (6 - k)), gold=float(k)) for k in range(7)]


def several() -> list[Sample]:
    golds = [("cat",)] * 3 + [("dog",)] * 3 + [("cat", "dog")] * 2 + [()]
    texts = [
        "meow",
        "purr meow",
        "purr",
        "woof",
        "bark woof",
        "bark",
        "meow woof",
        "bark purr",
        "nothing here",
    ]
    return [sample(text, gold=gold) for text, gold in zip(texts, golds, strict=True)]


def test_it_tells_cats_from_dogs() -> None:
    model, scores = tfidf.fit(Classification.of(ONE), ONE, VALID)
    assert [a.label for a in model.answers([sample("purr meow"), sample("growl woof")])] == ["cat", "dog"]
    assert scores["accuracy"] == 1.0
    assert sum(model.answers(VALID)[0].scores.values()) == pytest.approx(1)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    model, _ = tfidf.fit(Classification.of(ONE), ONE, VALID)
    together = model.answers([*VALID, sample("")])
    alone = [model.answers([one])[0] for one in [*VALID, sample("")]]
    assert together == alone


def test_the_winner_is_refitted_on_all_labels() -> None:
    new = sample("axolotl", gold="cat")
    model, _ = tfidf.fit(Classification.of(ONE), ONE, [*VALID, new])
    assert "axolotl" in model.vocabulary


def test_the_first_of_equal_penalties_is_kept() -> None:
    model, _ = tfidf.fit(Classification.of(ONE), ONE, VALID, TfIdfConfig(strengths=(7.0, 5.0)))
    assert model.strength == 7.0


def test_several_labels_are_answered_each_for_itself() -> None:
    samples = several()
    task = Classification.of(samples, "many")
    model, _ = tfidf.fit(task, samples, samples, TfIdfConfig(strengths=(100.0,)))
    said = [
        answer.labels for answer in model.answers([sample("meow bark"), sample("meow"), sample("nothing")])
    ]
    assert said == [("cat", "dog"), ("cat",), ()]


def test_numbers_rise_with_the_text() -> None:
    samples = numbers()
    model, scores = tfidf.fit(Classification.of(samples, "number"), samples, samples)
    values = [answer.value for answer in model.answers(samples)]
    assert values == sorted(values) and scores["pearson"] > 0.9  # type: ignore[type-var]


@pytest.mark.parametrize("kind", ["one", "many", "number"])
def test_what_is_saved_answers_the_same(kind: str, tmp_path: Path) -> None:
    samples = {"one": ONE, "many": several(), "number": numbers()}[kind]
    model, _ = tfidf.fit(Classification.of(samples, kind), samples, samples)  # type: ignore[arg-type]
    model.save(tmp_path / "model", {"seed": 3})
    again = tfidf.load(tmp_path / "model")
    assert again.answers(samples) == model.answers(samples)
    assert again.parameters == model.parameters and again.task == model.task
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "vocabulary.json", "model.safetensors", "run.json"}


def test_a_label_that_training_never_showed_is_never_answered() -> None:
    task = Classification("one", ("cat", "dog", "emu"))
    model, _ = tfidf.fit(task, ONE, VALID)
    assert all(answer.scores["emu"] < 1e-6 for answer in model.answers(ONE))


def test_one_class_alone_is_answered_always() -> None:
    cats = [sample(x, gold="cat") for x in CATS]
    model, _ = tfidf.fit(Classification("one", ("cat", "dog")), cats[:4], cats[4:])
    assert model.answers([sample("woof")])[0].label == "cat"


def test_the_parts_of_a_pair_are_told_apart() -> None:
    pairs = [sample("yes", "no", gold="first") for _ in range(4)] + [
        sample("no", "yes", gold="second") for _ in range(4)
    ]
    _, scores = tfidf.fit(Classification.of(pairs), pairs, pairs)
    assert scores["accuracy"] == 1.0


def test_chinese_is_read_by_characters() -> None:
    samples = [sample("这家酒店很好", gold="+"), sample("房间很脏", gold="-")] * 3
    config = for_language("zh")
    model, scores = tfidf.fit(Classification.of(samples), samples, samples, config)
    assert config.units == "characters" and {"好", "很好", "店很好"} <= set(model.vocabulary)
    assert scores["accuracy"] == 1.0


def test_texts_without_a_word_are_a_clear_mistake() -> None:
    empty = [sample(" ", gold="a"), sample(" ", gold="b")]
    with pytest.raises(UserError, match="no word in any of 2 training texts"):
        tfidf.fit(Classification.of(empty), empty, empty)
