"""Schemes of tags: written in one another, kept to by a CRF and by constrained answers."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp, inf, log1p
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import torch

import tiny
from pretune.config import update
from pretune.data.conll import sentence
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.metrics.tagging import Chunk, Scheme, chunks, converted, may_follow, tags_of, written
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import Ensemble, join
from pretune.tasks.tagging import Tagging
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

QUIET = Fitting(quiet=True)
SCHEMES = tuple(x for x in get_args(Scheme) if x != "plain")


def named(count: int, seed: int = 0) -> list[Sample]:
    """A film and a book are things, "very" before them is part of them; iob2."""
    found = []
    for i, text in enumerate(tiny.texts(count, seed)):
        words, tags, before = text.split(), [], "O"
        for word, after in zip(words, [*words[1:], ""], strict=True):
            inside = word in ("film", "book") or (word == "very" and after in ("film", "book"))
            before = (
                "O" if not inside else "I-X" if before != "O" and words[len(tags) - 1] == "very" else "B-X"
            )
            tags.append(before)
        found.append(Sample(str(i), (sentence(words),), tuple(tags)))
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_come_out_of_every_scheme_as_they_went_in(scheme: Scheme) -> None:
    chance = Random(0)
    for _ in range(200):
        spans, at = [], 0
        while at < 8:
            end = min(8, at + chance.randint(1, 3))
            if chance.random() < 0.6:
                spans.append(Chunk(at, end, chance.choice(["X", "Y"])))
            at = end
        tags = written(spans, 8, scheme)
        assert chunks(tags, scheme) == chunks(tags, scheme, strict=True) == spans
        for other in SCHEMES:
            assert chunks(converted(tags, scheme, other), other) == spans
            assert converted(converted(tags, scheme, other), other, scheme) == tags
        assert set(tags) <= set(tags_of(["X", "Y"], scheme))


def test_conversions_by_hand() -> None:
    iob1 = "I-X I-X B-X O I-Y I-X".split()
    assert converted(iob1, "iob1", "iob2") == "B-X I-X B-X O B-Y B-X".split()
    assert converted(iob1, "iob1", "bioes") == "B-X E-X S-X O S-Y S-X".split()
    assert converted(iob1, "iob1", "bmes") == "B-X E-X S-X O S-Y S-X".split()
    assert converted("B-X I-X I-X".split(), "iob2", "bmes") == "B-X M-X E-X".split()
    assert converted("B-X I-X I-X O B-X".split(), "iob2", "bilou") == "B-X I-X L-X O U-X".split()
    assert converted("O I-X I-X".split(), "iob2", "iob2") == "O B-X I-X".split()  # mended


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_may_follow_makes_well_written_sentences_and_all_of_them(scheme: Scheme) -> None:
    tags = tags_of(["X", "Y"], scheme)
    for some in product(tags, repeat=3):
        allowed = all(may_follow(a, b, scheme) for a, b in zip((None, *some), (*some, None), strict=True))
        assert allowed == (converted(some, scheme, scheme) == list(some)), some


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("option", ["crf", "constrained"])
def test_answers_keep_to_the_scheme_whatever_the_scores(option: str, scheme: Scheme) -> None:
    samples = named(20)
    task = update(Tagging.of(samples), {option: True, "scheme": scheme}, "task")
    start = tiny.start("wordvectors")
    trained = join(start, task, tiny.recipe("full"), 0)
    for parameter in trained.model.head.parameters():
        torch.nn.init.normal_(parameter, std=3)
    for answer, one in zip(trained.answers(samples), samples, strict=True):
        said = answer.labels or ()
        assert list(said) == converted(said, "iob2", "iob2")
        words, places = one.parts[0].words, {x.start: i for i, x in enumerate(one.parts[0].words)}
        found = [(places[span.start], kind) for span, kind in answer.spans or ()]
        assert found == [(x.start, x.kind) for x in chunks(said, "iob2")]
        assert answer.words is not None and len(answer.words) == len(words)
        for _, shares in answer.words:
            assert sum(shares) == pytest.approx(1) and len(shares) == len(task.tags)
    assert trained.task.score([s.gold for s in samples], trained.answers(samples))["strict_f1"] >= 0


def test_a_learned_scheme_is_the_same_question() -> None:
    """Golds of any scheme lose the same, and answers are of the scheme of golds."""
    start, bioes = tiny.start("wordvectors"), named(6)
    other = [Sample(s.key, s.parts, tuple(converted(s.gold, "iob2", "bioes"))) for s in bioes]
    losses = []
    for samples in (bioes, other):
        task = update(Tagging.of(samples), {"scheme": "bilou"}, "task")
        trained = join(start, task, tiny.recipe("full"), 0)
        trained.model.eval()
        batch = task_batch(task, start.codec, samples, task.rows(start.codec, samples), True)
        losses.append(float(trained.model(batch).reported))
        golds = [s.gold for s in samples]
        perfect = [task.answer_of(s.parts[0].words, one_hot(task, s.gold)) for s in samples]
        assert [x.labels for x in perfect] == golds
        assert task.score(golds, perfect) == dict.fromkeys(
            ("span_f1", "span_precision", "span_recall", "strict_f1", "accuracy"), 1.0
        )
    assert losses[0] == losses[1]


def one_hot(task: Tagging, gold: tuple[str, ...]) -> list[list[float]]:
    learned = converted(gold, task.gold_scheme, task.scheme)
    return [[float(tag == said) for tag in task.tags] for said in learned]


def test_the_loss_of_a_crf_is_that_of_whole_sentences() -> None:
    """Against every sequence, and a batch as its samples alone."""
    samples, start = named(5), tiny.start("ulmfit")
    task = update(Tagging.of(samples), {"crf": True}, "task")
    trained = join(start, task, tiny.recipe("full"), 0)
    trained.model.eval()
    head: Any = trained.model.head
    for parameter in head.crf.parameters():
        torch.nn.init.normal_(parameter)

    def run(some: list[Sample]) -> tuple[Any, float]:
        batch = task_batch(task, start.codec, some, task.rows(start.codec, some), True)
        return trained.model(batch).scores, float(trained.model(batch).reported)

    assert run(samples)[1] == pytest.approx(sum(run([one])[1] for one in samples), rel=1e-5)
    short = min(samples, key=lambda s: len(s.gold))
    scores, loss = run([short])
    scores = {name: x.detach() for name, x in scores.items()}
    total, right = -inf, -inf
    for path in product(range(len(task.tags)), repeat=len(short.gold)):
        value = float(scores["begin"][path[0]] + scores["end"][path[-1]])
        value += sum(float(scores["logits"][t, k]) for t, k in enumerate(path))
        value += sum(float(scores["transitions"][a, b]) for a, b in pairwise(path))
        total = max(total, value) + log1p(exp(-abs(total - value)))
        right = value if [task.tags[k] for k in path] == list(short.gold) else right
    assert loss == pytest.approx(total - right, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", ["full", "features"])
def test_a_crf_learns_and_its_folder_answers_as_it_does(method: str, recipe: str, tmp_path: Path) -> None:
    train, test = named(30), named(10, seed=1)
    task = update(Tagging.of(train), {"crf": True, "scheme": "bioes"}, "task")
    changes: dict[str, Any] = {"epochs": 2, "lr": 0.05, "batch_size": 4}
    if recipe == "features":
        changes |= {"bilstm": 8, "dropout": 0.0, "epochs": 30 if method == "wordvectors" else 2}
    trained, _ = finetune(tiny.start(method), task, tiny.recipe(recipe, **changes), train, [], QUIET)
    if changes["epochs"] == 30:  # a biLSTM-CRF over word vectors
        assert task.score([s.gold for s in train], trained.answers(train))["span_f1"] > 0.9
    trained.save(tmp_path / "m", {})
    loaded = load_trained(tmp_path / "m")
    assert loaded.task == task and loaded.answers(test) == trained.answers(test)
    alone = [trained.answers([one])[0] for one in test]
    for one, other in zip(alone, trained.answers(test[::-1], 3)[::-1], strict=True):
        assert one.labels == other.labels
        for (_, mine), (_, theirs) in zip(one.words or (), other.words or (), strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)


def test_empty_texts_and_ensembles_of_crfs_answer() -> None:
    samples = named(8)
    task = update(Tagging.of(samples), {"crf": True}, "task")
    members = {
        name: join(tiny.start("wordvectors", seed), task, tiny.recipe("full"), seed)
        for seed, name in enumerate("ab")
    }
    blank = Sample("", (sentence([]),))
    both = Ensemble(members).answers([blank, *samples])
    assert both[0].labels == ()
    assert members["a"].answers([blank])[0].labels == ()
    for answer in both:
        assert list(answer.labels or ()) == converted(answer.labels or (), "iob2", "iob2")


def test_a_crf_over_plain_tags_forbids_nothing() -> None:
    samples = [Sample(s.key, s.parts, tuple("NV"[tag == "O"] for tag in s.gold)) for s in named(10)]
    task = update(Tagging.of(samples), {"crf": True}, "task")
    assert all(not x.any() for x in task.allowed) and task.metric == "accuracy"
    _, fitted = finetune(
        tiny.start("wordvectors"), task, tiny.recipe("full", epochs=30), samples, samples, QUIET
    )
    assert fitted.best["accuracy"] > 0.9


def test_options_that_mean_nothing_are_refused() -> None:
    task, plain = Tagging.of(named(10)), Tagging(("N", "V"))
    assert task.scheme == "iob2" and task.tags == task.labels
    with pytest.raises(UsageError, match="mark no spans"):
        update(plain, {"scheme": "bioes", "written": "plain"}, "task")
    with pytest.raises(UsageError, match=r"task\.constrained is for tags of a scheme"):
        update(plain, {"constrained": True}, "task")
    with pytest.raises(UsageError, match=r"leave task\.constrained out"):
        update(task, {"constrained": True, "crf": True}, "task")
    with pytest.raises(UserError, match="'Z', which the task does not know"):
        update(task, {"crf": True}, "task").gold([Sample("", (sentence(["a"]),), ("Z",))], [[]])
    as_words = update(task, {"scheme": "plain"}, "task")
    assert as_words.metric == "accuracy" and as_words.tags == task.labels
