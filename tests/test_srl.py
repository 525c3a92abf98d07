"""Semantic roles: counted as CoNLL-2005 counts them, learned by every method, asked and answered."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.conll import sentence
from pretune.data.samples import Part, Sample, Span, sample
from pretune.errors import UsageError, UserError
from pretune.layers.crf import viterbi
from pretune.methods import METHODS
from pretune.metrics.roles import Argument, arguments, by_role, scores_of, tallies
from pretune.runs.predictor import Predictor, evaluate
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import Ensemble, TrainedModel, join
from pretune.tasks.srl import SemanticRoles, bio_moves
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

QUIET = Fitting(device="cpu", quiet=True)
FIGURES = ("argument_f1", "argument_precision", "argument_recall", "perfect")
TAGS = ("B-ARG0", "B-ARG1", "B-V", "I-ARG1", "O")


def about(words: list[str], predicate: int, tags: tuple[str, ...] | None = None, key: str = "") -> Sample:
    part = sentence(words)
    return Sample(key, (part,), tags, (part.words[predicate],))


def labelled(count: int, seed: int = 0) -> list[Sample]:
    """Sentences whose roles hang on which word is the predicate: those before it are ARG0, behind it ARG1."""
    chance, found = Random(seed), list[Sample]()
    while len(found) < count:
        words = chance.sample(tiny.WORDS, chance.randint(2, 7))
        for at in chance.sample(range(len(words)), min(2, len(words))):
            tags = ["B-ARG0"] + ["I-ARG0"] * (at - 1) if at else []
            after = len(words) - at - 1
            tags += ["B-V"] + (["B-ARG1"] + ["I-ARG1"] * (after - 1) if after else [])
            found.append(about(words, at, tuple(tags), str(len(found))))
    return found[:count]


def told(count: int, seed: int = 0) -> list[Sample]:
    """Sentences of two predicates, good and bad: a word and which is asked about say its tag together."""
    chance, found = Random(seed), list[Sample]()
    for words in (["good", *chance.sample(tiny.WORDS[:6], 3), "bad"] for _ in range(count // 2)):
        for at, (one, other) in ((0, ("B-ARG0", "B-ARG1")), (4, ("B-ARG1", "B-ARG0"))):
            tags = [one if word in tiny.WORDS[:3] else other for word in words[1:4]]
            ends = ("B-V", *tags, "O") if at == 0 else ("O", *tags, "B-V")
            found.append(about(words, at, ends, str(len(found))))
    return found


# The metric, by hand as srl-eval.pl of CoNLL 2005 reads these columns.


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-A0 I-A0 B-V O B-A1", [("A0", (0, 2)), ("A1", (4, 5))]),  # the verb is none
        ("B-A1 B-V B-C-A1", [("A1", (0, 1), (2, 3))]),  # goes on: one argument in two pieces
        ("B-A1 B-V B-A1 O B-C-A1", [("A1", (0, 1)), ("A1", (2, 3), (4, 5))]),  # the last one goes on
        ("B-A1 B-C-A1 B-V B-C-A1", [("A1", (0, 1), (1, 2), (3, 4))]),
        ("B-C-A1 B-V B-A1", [("A1", (0, 1)), ("A1", (2, 3))]),  # nothing to go on with: an A1
        ("B-A1 B-R-A1 B-V", [("A1", (0, 1)), ("R-A1", (1, 2))]),  # a reference is a role of its own
        ("B-V O B-C-V", []),  # the verb's particle belongs to the verb
        ("B-C-V O B-V", []),
        ("B-A0 B-V B-C-A1", [("A0", (0, 1)), ("A1", (2, 3))]),
        ("O O", []),
    ],
)
def test_arguments_are_those_of_the_official_scorer(tags: str, found: list[Any]) -> None:
    assert arguments(tags.split()) == [
        Argument(role, pieces) for role, *some in found for pieces in [tuple(some)]
    ]


def test_scores_are_those_of_the_official_scorer_counted_by_hand() -> None:
    golds = [
        "B-A0 I-A0 B-V B-A1 O".split(),  # A0 0-2, A1 3-4
        "B-A1 B-V O B-C-A1 B-AM-TMP".split(),  # A1 0-1 + 3-4, AM-TMP 4-5
        "O B-V B-A1".split(),  # A1 2-3
    ]
    said = [
        "B-A0 I-A0 B-V B-A1 I-A1".split(),  # A0 right; A1 3-5 too long: 1 right, 1 excess, 1 missed
        "B-A1 B-V O O B-AM-TMP".split(),  # A1 without its second piece is wrong: 1 right, 1 excess, 1 missed
        "O B-V B-A1".split(),  # all right: the one perfect proposition of three
    ]
    figures = scores_of(tallies(golds, said).sum(0))
    # In all 3 right, 2 excess, 2 missed: precision 3/5, recall 3/5; the three verbs count for nothing.
    assert figures == pytest.approx(dict(zip(FIGURES, (3 / 5, 3 / 5, 3 / 5, 1 / 3), strict=True)))
    table = by_role(golds, said)
    assert list(table) == ["A0", "A1", "AM-TMP"]
    assert list(table["A1"]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 3])
    assert table["A0"] == table["AM-TMP"] == (1.0, 1.0, 1.0, 1)


def test_a_predicate_without_arguments_costs_nothing_and_is_perfect() -> None:
    figures = scores_of(tallies([["B-V", "O"], ["B-A0", "B-V"]], [["B-V", "O"], ["O", "B-V"]]).sum(0))
    assert figures == dict(zip(FIGURES, (0.0, 0.0, 0.0, 0.5), strict=True))


def test_golds_and_answers_must_fit() -> None:
    with pytest.raises(UserError, match="cannot score 1 answers against 0 golds"):
        tallies([], [["O"]])
    with pytest.raises(UserError, match="cannot score 1 tags against 2"):
        tallies([["O", "O"]], [["O"]])


# Decoding


def test_an_argument_begins_with_its_b() -> None:
    labels = ("O", "I-A1", "B-A1", "I-A0", "B-A0", "B-V")
    scores = torch.tensor([[0, 9, 0, 0, 1, 0], [0, 9, 5, 0, 0, 0], [0, 9, 0, 0, 0, 0], [9, 0, 0, 8, 0, 0.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    (path,) = viterbi(scores.double()[None], mask, *bio_moves(labels))
    # I-A1 would win at the first three words, but nothing begins with it: B-A1 and 0 beats B-A0 and a break
    assert [labels[i] for i in path] == ["B-A1", "I-A1", "I-A1", "O"]


def test_answers_are_the_likeliest_of_all_that_are_bio() -> None:
    task = SemanticRoles(TAGS)
    asked = [about(["a", "film", "was", "good"], 2), about(["it", "was"], 1)]
    logits = 9 * torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    logits[0, TAGS.index("I-ARG1")] = logits[4, TAGS.index("I-ARG1")] = 200.0  # where nothing has begun

    def fits(tags: tuple[str, ...]) -> bool:
        return all(b[0] != "I" or a[1:] == b[1:] for a, b in pairwise(("O", *tags)))

    said = task.decode({"logits": logits}, asked, [[], []])
    for answer, table in zip(said, torch.split(logits, [4, 2]), strict=True):
        paths = product(range(5), repeat=len(table))
        possible = [path for path in paths if fits(tuple(TAGS[i] for i in path))]
        best = max(possible, key=lambda path: float(table[range(len(path)), path].sum()))
        assert answer.labels == tuple(TAGS[i] for i in best)


def test_arguments_are_characters_of_the_original_text() -> None:
    task = SemanticRoles(TAGS)
    asked = Sample("", (Part("Ann  saw, yesterday a film"),), None, (Span(5, 8),))
    logits = torch.full((6, 5), -9.0)
    for word, tag in enumerate(("B-ARG0", "B-V", "O", "O", "B-ARG1", "I-ARG1")):
        logits[word, TAGS.index(tag)] = 9.0
    (answer,) = task.decode({"logits": logits}, [asked], [[]])
    assert answer.spans == ((Span(0, 3), "ARG0"), (Span(20, 26), "ARG1"))  # the predicate is given
    assert answer.to_dict()["spans"][1] == {"start": 20, "end": 26, "label": "ARG1"}


# The model


@pytest.mark.parametrize("method", METHODS)
def test_each_word_has_one_tag_in_every_method(method: str) -> None:
    words = ["film", "isn't", "good", "!", "!", "!", "!", "!", "very", "very", "very", "very", "X"]
    trained = join(tiny.start(method), SemanticRoles(TAGS), tiny.recipe("full"), 0)
    unsplit = Sample("", (Part("a  \n\n film\t ."),), None, (Span(6, 10),))
    said = trained.answers([about(words, 1), about(["good"], 0), unsplit])
    assert [len(answer.labels or ()) for answer in said] == [13, 1, 3]


@pytest.mark.parametrize("layers", [0, 2])
def test_a_batch_loses_as_much_as_its_samples_alone(layers: int) -> None:
    samples, start = labelled(6), tiny.start("ulmfit")
    task = SemanticRoles.of(samples, highway_layers=layers)
    trained = join(start, task, tiny.recipe("full"), 0)
    trained.model.eval()

    def loss(some: list[Sample]) -> float:
        batch = task_batch(task, start.codec, some, task.rows(start.codec, some), True)
        return float(trained.model(batch).reported)

    assert loss(samples) == pytest.approx(sum(loss([one]) for one in samples), rel=1e-5)
    batch = task_batch(task, start.codec, samples, task.rows(start.codec, samples), True)
    assert trained.model.head.targets(batch) == sum(len(s.gold) for s in samples)


@pytest.mark.parametrize("layers", [0, 2])
def test_which_word_is_the_predicate_reaches_every_word(layers: int) -> None:
    words = ["film", "was", "good", "but", "dull"]
    task = SemanticRoles(TAGS, highway_layers=layers, highway_width=8, dropout=0.0)
    start = tiny.start("wordvectors")
    trained = join(start, task, tiny.recipe("full"), 0)
    trained.model.eval()
    one, other = (list(trained.answers([about(words, at)])[0].words or ()) for at in (1, 3))
    assert all(list(mine) != list(theirs) for (_, mine), (_, theirs) in zip(one, other, strict=True))
    asked = [about(words, 1, ("B-ARG0", "B-V", "B-ARG1", "O", "O"))]
    batch = task_batch(task, start.codec, asked, task.rows(start.codec, asked), True)
    trained.model(batch).loss.backward()
    head: Any = trained.model.head
    assert (head.indicator.weight.grad != 0).any(1).all()  # of both: the predicate, and other words


@pytest.mark.parametrize("layers", [0, 2])
def test_two_predicates_of_a_sentence_are_told_apart(layers: int) -> None:
    train = told(8)
    shape: Any = {"highway_layers": layers, "highway_width": 24, "hidden": 48, "recurrent_dropout": 0.0}
    task = SemanticRoles.of(train, indicator=12, dropout=0.0, **shape)
    recipe = tiny.recipe("full", lr=0.05, epochs=80, batch_size=8)
    trained, _ = finetune(tiny.start("wordvectors"), task, recipe, train, [], QUIET)
    assert task.score([s.gold for s in train], trained.answers(train))["perfect"] == 1.0


def test_the_lstm_learns_over_frozen_features() -> None:
    train = labelled(60)
    task = SemanticRoles.of(train, highway_layers=2, highway_width=24, indicator=12, dropout=0.0)
    recipe = tiny.recipe("features", epochs=16, lr=0.03, dropout=0.0)
    _, fitted = finetune(tiny.start("wordvectors"), task, recipe, train, labelled(20, 1), QUIET)
    assert fitted.best["argument_f1"] > 0.9  # before or behind the predicate: only an LSTM can know


def test_several_models_average_what_they_say_of_each_word() -> None:
    train = labelled(8)
    members = {
        name: join(tiny.start("wordvectors", seed), SemanticRoles.of(train), tiny.recipe("full"), seed)
        for seed, name in enumerate("ab")
    }
    (both,) = Ensemble(members).answers(train[:1])
    each = [member.answers(train[:1])[0].words or () for member in members.values()]
    assert both.words is not None
    for (_, shares), (_, one), (_, other) in zip(both.words, *each, strict=True):
        assert list(shares) == pytest.approx([(x + y) / 2 for x, y in zip(one, other, strict=True)])


def test_mistakes_of_samples_and_options_are_named() -> None:
    task = SemanticRoles.of([about(["a", "film"], 1, ("B-ARG0", "B-V"))])
    with pytest.raises(UserError, match=r"'f:2' has 1 tags for 2 words"):
        task.gold([about(["a", "film"], 1, ("B-V",), "f:2")], [[]])
    with pytest.raises(UserError, match=r"'f:3' has the tag 'B-Z', which the task does not know"):
        task.gold([about(["a"], 0, ("B-Z",), "f:3")], [[]])
    with pytest.raises(UserError, match="1 texts and 0 predicates; roles are those of one predicate"):
        task.words_of(sample("a film"))
    with pytest.raises(UserError, match="no word stands at characters 1 to 2"):
        nowhere = Sample("", (Part("a film"),), None, (Span(1, 2),))
        task.predicate_of(nowhere, task.words_of(nowhere))
    with pytest.raises(UserError, match="nothing to learn"):
        SemanticRoles.of([about(["a"], 0, ("B-V",))])
    with pytest.raises(UserError, match=r"'E-ARG0' is not of the scheme iob2"):
        SemanticRoles(("O", "E-ARG0"))
    with pytest.raises(UsageError, match=r"task.token is 'lst'; did you mean 'last'"):
        SemanticRoles(token="lst")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"task.highway_layers is -1; it must be at least 0"):
        SemanticRoles(highway_layers=-1)
    with pytest.raises(UsageError, match=r"task.recurrent_dropout is 1.0; it must be from 0"):
        SemanticRoles(recurrent_dropout=1.0)


# The commands


def run(*arguments: object, stdin: str | None = None, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert done.exit_code == code, done.stderr
    return done.stderr if code else done.stdout


def columns_of(samples: list[Sample]) -> str:
    """As CoNLL 2005: word, predicate, one column of brackets."""
    blocks = []
    for one in samples:
        part, lines = one.parts[0], []
        for i, span in enumerate(part.words):
            tag, rest = one.gold[i], one.gold[i + 1 :]
            cell = (f"({tag[2:]}" if tag[0] == "B" else "") + "*"
            cell += ")" if tag != "O" and not (rest and rest[0][0] == "I") else ""
            lines.append(f"{part.text[span.start : span.end]} {'be' if span in one.marks else '-'} {cell}\n")
        blocks.append("".join(lines))
    return "\n".join(blocks)


def test_the_commands_train_score_and_answer(tmp_path: Path) -> None:
    samples = labelled(60)
    train = tmp_path / "train.conll"
    train.write_text(columns_of(samples) + "\nno -\npredicate -\n", "utf-8")
    model = tmp_path / "model"
    settings = ["--method", "wordvectors", "codec.min_count=1", "recipe.epochs=16", "recipe.lr=0.03"]
    settings += ["task.highway_layers=2", "task.highway_width=24", "task.indicator=12"]
    said = run("finetune", "srl", train, *settings, "--out", model, "--device", "cpu", "--quiet")
    assert said.startswith("validation: argument_f1")
    scores = tmp_path / "scores.json"
    shown = run("evaluate", model, train, "--out", scores, "--quiet")
    assert "argument_f1" in shown and "ARG1" in shown
    found = json.loads(scores.read_text())
    assert found["samples"] == 60 and found["scores"]["argument_f1"] > 0.8
    assert found["labels"]["ARG0"]["golds"] == sum("B-ARG0" in s.gold for s in samples)
    low, high = found["intervals"]["argument_f1"]
    assert low <= found["scores"]["argument_f1"] <= high
    assert evaluate(model, train, device="cpu").scores == found["scores"]

    by_file = [json.loads(line) for line in run("predict", model, train, "--quiet").splitlines()]
    predictor = Predictor.load(model, "cpu")
    assert [tuple(x["labels"]) for x in by_file] == [a.labels for a in predictor.answer(samples)]
    first = by_file[0]
    assert first["text"] == samples[0].texts[0] and first["predicate"] == [*samples[0].marks[0]]
    assert all(set(span) == {"start", "end", "label"} for span in first["spans"])

    # an answer is a question again, and labelled samples
    words = [samples[0].texts[0][a:b] for a, b in samples[0].parts[0].words]
    at = samples[0].parts[0].words.index(samples[0].marks[0])
    questions: list[Any] = [
        first,
        {"words": words, "predicate": at},
        {"words": words, "predicate": [at, at + 1]},
        {"text": first["text"], "predicate": first["predicate"]},
        (words, at),
        (first["text"], first["predicate"]),
    ]
    for question in questions:
        assert predictor.answer(question)[0].labels == tuple(first["labels"])
    lines = "".join(json.dumps(x) + "\n" for x in by_file)
    assert run("predict", model, "-", stdin=lines) == lines
    again = tmp_path / "again.jsonl"
    again.write_text(lines)
    assert evaluate(model, again, device="cpu").scores["argument_f1"] == 1.0
    loaded = load_trained(model)
    assert isinstance(loaded, TrainedModel) and isinstance(loaded.task, SemanticRoles)
    assert loaded.task.highway_layers == 2

    message = " ".join(run("predict", model, "-", stdin="the film was good\n", code=1).split())
    assert "stdin.jsonl:1: 'the film was good' asks nothing; roles are those of a given predicate" in message
    with pytest.raises(UserError, match="'the film' asks nothing"):
        predictor.answer("the film")
    text = tmp_path / "new.txt"
    text.write_text("the film\n")
    assert "read from CoNLL's columns" in " ".join(run("predict", model, text, code=1).split())
    unasked = run("predict", model, train, "--choices", "a", code=1)
    assert "does not choose; leave --choices out" in " ".join(unasked.split())
    assert "labels roles" in " ".join(run("evaluate", model, train, "--kind", "one", code=1).split())


def test_all_predicates_of_a_sentence_are_held_out_together(tmp_path: Path) -> None:
    samples = [replace(s, key="") for s in told(24)]
    train = tmp_path / "train.conll"
    train.write_text(columns_of(samples), "utf-8")
    from pretune.cli.common import Notes
    from pretune.cli.predicates import labelling_roles

    reading = {"text": (), "label": (), "format": None, "encoding": "utf-8"}
    learn, check, prints = labelling_roles(train, None, 0.25, reading, 0, Notes(True))
    assert (len(learn), len(check)) == (18, 6) and prints["kind"] == "roles"
    assert not {s.texts for s in learn} & {s.texts for s in check}


def test_the_terminal_shows_the_predicate_and_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    from pretune.cli import answer as command
    from pretune.tasks.base import Answer

    screen = Console(file=StringIO(), width=100)
    monkeypatch.setattr(command, "stdout", lambda: screen)
    asked = about(["Ann", "saw", "a", "film"], 1)
    command._print_answers([asked], [Answer(spans=((Span(0, 3), "ARG0"), (Span(8, 14), "ARG1")))])
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "Ann [saw] a film" in shown and "Ann ARG0, a film ARG1" in shown
