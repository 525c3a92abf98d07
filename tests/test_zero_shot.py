"""Answers without training: by hand, of both kinds of model, from files, and of one that has learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny
from gpt_models import CONTEXT, QUIET, codec, documents, encoder, language_model
from pretune.cli import app
from pretune.data.choices import choice_sample
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.methods.gpt.language import MARKS, PlainText
from pretune.methods.gpt.pretraining import GPTPretraining
from pretune.methods.gpt.tokens import GPTCodec
from pretune.metrics.classification import matthews
from pretune.runs.language_model import LanguageModel
from pretune.runs.left_to_right import GPTText, LeftToRight, left_to_right
from pretune.runs.starts import save_start
from pretune.runs.zero_shot import Threshold, ZeroShot
from pretune.training.model import Model

QUESTION = choice_sample("the cat sat", ["on the mat .", "in", "very good , and"])
SCHEMA = choice_sample("the _ ran in the park .", ["dog", "mat"])


@pytest.fixture(scope="module")
def text() -> GPTCodec:
    return codec()


@pytest.fixture(scope="module")
def gpt(text: GPTCodec) -> Model:
    return language_model(text, bolder=20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    start = tiny.start("ulmfit")
    found: Any = start.encoder
    with torch.no_grad():
        found.embedding.weight.mul_(8)
    place = tmp_path_factory.mktemp("zero") / "ulmfit"
    save_start(start, place, {})
    return place


@pytest.fixture(scope="module", params=["gpt", "ulmfit"])
def reader(request: pytest.FixtureRequest, gpt: Model, text: GPTCodec, folder: Path) -> LeftToRight:
    if request.param == "gpt":
        return GPTText(gpt, text)
    return LanguageModel.load(folder, "cpu").left_to_right()


def one_by_one(reader: LeftToRight, read: list[int], scored: list[int]) -> list[float]:
    """Each id scored given all before it, by the distribution of what follows them."""
    said = []
    for t, token in enumerate(scored):
        before = [*read, *scored[:t]]
        if before:
            said.append(float(reader.following([before])[0][token]))
    return said


def test_what_follows_adds_up_to_one_and_agrees_with_scores(reader: LeftToRight) -> None:
    ids = [*reader.opening, *reader.ids("the cat sat on a mat .")][: CONTEXT - 1]
    following = reader.following([ids, ids[:2]])
    assert following.exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    (nats,) = reader.nats([ids])
    np.testing.assert_allclose(nats[1:], one_by_one(reader, ids[:1], ids[1:]), atol=1e-4)
    assert np.isnan(nats[0])


def test_a_text_is_acceptable_by_the_mean_of_its_tokens(reader: LeftToRight) -> None:
    texts = ["the cat sat on the mat .", "the dog", "mat the on"]
    for answer, said in zip(ZeroShot(reader).acceptability([sample(x) for x in texts]), texts, strict=True):
        wanted = one_by_one(reader, reader.opening, reader.ids(said))
        assert answer.value == pytest.approx(sum(wanted) / len(wanted), abs=1e-4) and answer.label is None
    threshold = Threshold(-3.0, "good", "bad")
    labels = [a.label for a in ZeroShot(reader).acceptability([sample(x) for x in texts], threshold)]
    assert labels == [
        "good" if a.value is not None and a.value >= -3 else "bad"
        for a in ZeroShot(reader).acceptability([sample(x) for x in texts])
    ]


def test_a_sentiment_is_the_likelier_of_two_words_after_very(reader: LeftToRight) -> None:
    words = {"yes": "good", "no": "the"}
    samples = [sample("the cat sat on the mat"), sample("a dog")]
    for answer, one in zip(ZeroShot(reader).sentiment(samples, words), samples, strict=True):
        read = [*reader.opening, *reader.ids(f"{one.texts[0]} very")]
        nats = reader.following([read])[0]
        two = torch.stack([nats[reader.ids(word)[0]] for word in words.values()]).softmax(0)
        assert list(answer.scores) == ["yes", "no"]
        assert list(answer.scores.values()) == pytest.approx(two.tolist(), abs=1e-4)
        assert answer.label == ("yes" if two[0] > two[1] else "no")


def test_words_of_several_tokens_count_with_all_of_them(gpt: Model, text: GPTCodec) -> None:
    reader = GPTText(gpt, text)
    words = {"a": "good", "b": "dogma"}
    assert len(reader.ids("dogma")) > 1
    (answer,) = ZeroShot(reader).sentiment([sample("the cat")], words, append="")
    read = reader.ids("the cat")
    sums = [sum(one_by_one(reader, read, reader.ids(word))) for word in words.values()]
    assert list(answer.scores.values()) == pytest.approx(torch.tensor(sums).softmax(0).tolist(), abs=1e-4)


def test_a_choice_is_scored_by_the_mean_of_its_tokens_after_the_question(reader: LeftToRight) -> None:
    (answer,) = ZeroShot(reader).choices([QUESTION])
    read = [*reader.opening, *reader.ids(QUESTION.texts[0])]
    means = [float(np.mean(one_by_one(reader, read, reader.ids(x)))) for x in QUESTION.texts[1:]]
    assert list(answer.scores.values()) == pytest.approx(means, abs=1e-4)
    assert answer.choice == int(np.argmax(means))


def test_a_blank_is_filled_by_what_makes_the_rest_likely(reader: LeftToRight) -> None:
    (answer,) = ZeroShot(reader).cloze([SCHEMA])
    means = []
    for word in SCHEMA.texts[1:]:
        read = [*reader.opening, *reader.ids("the"), *reader.ids(word)]
        means.append(float(np.mean(one_by_one(reader, read, reader.ids("ran in the park .")))))
    assert list(answer.scores.values()) == pytest.approx(means, abs=1e-4)
    (other,) = ZeroShot(reader).cloze([replace(SCHEMA, parts=sample("the [?] ran .", "a", "b").parts)], "[?]")
    assert other.choice in (0, 1)


def test_answers_do_not_depend_on_the_batch(reader: LeftToRight) -> None:
    texts = [sample(x) for x in documents(7, 4, 3)]
    for size in (1, 3):
        one, many = ZeroShot(reader, size), ZeroShot(reader, 64)
        assert [a.value for a in one.acceptability(texts)] == pytest.approx(
            [a.value for a in many.acceptability(texts)], abs=1e-4
        )
        for a, b in zip(
            one.sentiment(texts, {"x": "good", "y": "the"}), many.sentiment(texts, {"x": "good", "y": "the"})
        ):
            assert list(a.scores.values()) == pytest.approx(list(b.scores.values()), abs=1e-4)


def test_of_a_long_question_what_stands_nearest_is_read(gpt: Model, text: GPTCodec) -> None:
    reader = GPTText(gpt, text)
    long = " ".join(documents(1, 6, 30))
    assert len(reader.ids(long)) > 2 * CONTEXT
    (answer,) = ZeroShot(reader).choices([choice_sample(long, ["on the mat .", "in"])])
    scored = reader.ids("on the mat .")
    read = reader.ids(long)[-(CONTEXT + 1 - len(scored)) :]
    assert answer.scores["0"] == pytest.approx(float(np.mean(one_by_one(reader, read, scored))), abs=1e-4)


def test_a_model_that_has_learned_finds_what_it_has_read_acceptable(text: GPTCodec) -> None:
    made = encoder(text, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)
    setting = GPTPretraining(epochs=6, sequences=8, lr=0.02)
    setting.run(made, text, lambda: documents(20, 1), None, QUIET)
    zero = ZeroShot(GPTText(Model(made, PlainText().head(made)), text))
    fine, jumbled = zero.acceptability(
        [sample("the cat sat on the mat . a dog ran"), sample("mat a the . on ran cat dog")]
    )
    assert fine.value is not None and jumbled.value is not None and fine.value > jumbled.value + 1
    assert zero.choices([QUESTION])[0].choice == 0
    (answer,) = zero.sentiment([sample("it was")], {"positive": "good", "negative": "park"})
    assert answer.label == "positive" and answer.scores["positive"] > 0.9
    assert zero.cloze([SCHEMA])[0].scores.keys() == {"0", "1"}


def test_the_threshold_is_the_one_with_the_best_correlation() -> None:
    chance = np.random.default_rng(0)
    golds = ["1" if x else "0" for x in chance.random(200) < 0.7]
    scores = [float(x) for x in np.round(chance.normal([gold == "1" for gold in golds]), 2)]  # with ties
    found = Threshold.fitted(scores, golds)
    assert (found.above, found.below) == ("1", "0")
    cuts = sorted(set(scores))
    best = max(matthews(golds, ["1" if x >= cut else "0" for x in scores]) for cut in cuts[1:])
    assert matthews(golds, [found.label(x) for x in scores]) == pytest.approx(best)
    turned = Threshold.fitted([-x for x in scores], golds)
    assert (turned.above, turned.below) == ("0", "1")
    with pytest.raises(UserError, match="have 1"):
        Threshold.fitted([1.0, 2.0], ["a", "a"])
    with pytest.raises(UserError, match="score the same"):
        Threshold.fitted([1.0, 1.0], ["a", "b"])


def test_matthews_correlation_is_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(1)
    for labels in ("ab", "abc"):
        golds, said = ([labels[i] for i in chance.integers(0, len(labels), 50)] for _ in range(2))
        assert matthews(golds, said) == pytest.approx(metrics.matthews_corrcoef(golds, said))
    assert matthews(["a", "b"], ["a", "a"]) == 0 and matthews(["a", "b"], ["a", "b"]) == 1


def test_what_cannot_be_asked_is_named(gpt: Model, text: GPTCodec, folder: Path) -> None:
    zero = ZeroShot(GPTText(gpt, text))
    with pytest.raises(UserError, match="sample 'x' has no token that could be scored"):
        zero.acceptability([sample("the cat"), sample("the", key="x")])
    with pytest.raises(UserError, match="sample 'y' has 2 blanks; write _ once"):
        zero.cloze([choice_sample("the _ and _ .", ["a", "b"], key="y")])
    with pytest.raises(UserError, match="sample 'z' has no token that could be scored"):
        zero.cloze([choice_sample("the _", ["cat", "dog"], key="z")])
    with pytest.raises(UserError, match="sample 'w' is blank"):
        zero.sentiment([sample(" ", key="w")], {"a": "good", "b": "the"}, append="")
    with pytest.raises(UsageError, match="does not know the word '貓' of 'b'"):
        zero.sentiment([sample("the")], {"a": "good", "b": "貓"})
    with pytest.raises(UsageError, match="two labels or more"):
        zero.sentiment([sample("the")], {"a": "good"})
    backward = tiny.start("ulmfit")
    other: Any = backward.codec
    with pytest.raises(UserError, match="reads from right to left"):
        left_to_right(gpt, type(other)(replace(other.config, direction="backward"), other.vocab))
    with pytest.raises(UserError, match="give a gpt or a ulmfit"):
        left_to_right(gpt, tiny.start("elmo").codec)
    assert GPTText(gpt, text).following([[1]]).shape == (1, text.size - MARKS)


def run(*arguments: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["zero-shot", *map(str, arguments)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


def test_files_of_each_kind_are_answered(folder: Path, tmp_path: Path) -> None:
    zero = ZeroShot.load(folder, "cpu")
    texts = tmp_path / "texts.csv"
    texts.write_text(
        "sentence,label\nthe film was good,1\na plot the was,0\nit was a dull book,1\nbook a,0\n"
    )
    code, out, err = run(folder, texts, "--kind", "sentiment", "--word", "1=good", "--word", "0=bad")
    assert code == 0 and "4 samples: accuracy" in err
    said = [json.loads(line) for line in out.splitlines()]
    wanted = zero.sentiment(
        [sample(x) for x in ("the film was good", "a plot the was")], {"1": "good", "0": "bad"}
    )
    assert [x["label"] for x in said[:2]] == [x.label for x in wanted]
    assert said[0]["scores"] == pytest.approx(wanted[0].scores, abs=1e-4)

    code, out, err = run(folder, texts, "--kind", "acceptability", "-q")
    assert (
        code == 0
        and not err
        and [set(json.loads(line)) for line in out.splitlines()] == [{"value", "scores"}] * 4
    )
    answers = tmp_path / "answers.jsonl"
    code, out, err = run(folder, texts, "--kind", "acceptability", "--fit", texts, "--out", answers)
    assert code == 0 and "matthews" in out and "from a mean log-probability of" in err
    assert {json.loads(line)["label"] for line in answers.read_text().splitlines()} <= {"0", "1"}

    schemas = tmp_path / "schemas.jsonl"
    row = {"sentence": "the _ was very good .", "option1": "film", "option2": "book", "answer": "2"}
    schemas.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": "1"}) + "\n")
    for kind in ("cloze", "choice"):
        code, out, err = run(folder, schemas, "--kind", kind)
        assert code == 0 and "2 samples: accuracy 0.5" in err
        for line in map(json.loads, out.splitlines()):
            assert line["answer"] == ("film", "book")[line["choice"]]
    lines = tmp_path / "lines.txt"
    lines.write_text("the film was good\nit was dull\n")
    code, out, err = run(folder, lines, "--kind", "sentiment", "--word", "1=good", "--word", "0=bad")
    assert code == 0 and len(out.splitlines()) == 2 and "accuracy" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "mood"], "--kind is 'mood'"),
        (["--kind", "choice", "--word", "a=b"], "--word and --append go with --kind sentiment"),
        (["--kind", "sentiment", "--fit", "x.csv"], "--fit goes with --kind acceptability"),
        (["--kind", "sentiment", "--word", "good"], "--word is 'good'; write it as LABEL=WORD"),
        (["--kind", "sentiment"], "label '1' has no word"),
        (["--kind", "sentiment", "--choices", "a"], "--choices are for choice and cloze"),
    ],
)
def test_mistakes_on_the_command_line_are_named(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("sentence,label\nthe film was good,1\n")
    code, _, err = run(folder, texts, *arguments)
    assert code != 0 and message in err
