"""Similarity: pairs without an order, numbers as shares of levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import tiny
from pretune.data.samples import Sample, sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs.explain import Explainer
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import join
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.tasks.similarity import expected_level, shares_of_levels
from pretune.tasks.summary_head import by_owner
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

METHOD_NAMES = [name for name in METHODS if name in tiny.ENCODER]


def pairs(count: int, seed: int = 0) -> list[Sample]:
    """From 0, no word in common, to 5, the same."""
    chance, found = Random(seed), []
    for i in range(count):
        words = chance.sample(tiny.WORDS, 10)
        same = i % 6
        found.append(
            sample(
                " ".join(words[:5]), " ".join([*words[:same], *words[5:]][:5]), key=str(i), gold=float(same)
            )
        )
    return found


def turned(samples: list[Sample]) -> list[Sample]:
    return [replace(one, parts=one.parts[::-1]) for one in samples]


def task_of(samples: list[Sample], **options: Any) -> Classification:
    return Classification.of(samples, "number", **options)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("options", [{"of_rows": "mean"}, {"of_rows": "sum", "levels": (0, 5)}], ids=str)
def test_answers_are_the_same_whichever_text_comes_first(method, options):
    samples = pairs(6)
    task = task_of(samples, orders="both", **options)
    model = join(tiny.start(method), task, tiny.recipe("full"), 0)
    before, after = model.answers(samples), model.answers(turned(samples))
    assert [a.value for a in after] == pytest.approx([a.value for a in before], abs=1e-5)


def test_in_the_given_order_a_reader_feels_which_text_comes_first():
    samples = pairs(6)
    model = join(tiny.start("ulmfit"), task_of(samples, orders="given"), tiny.recipe("full"), 0)
    before, after = model.answers(samples), model.answers(turned(samples))
    assert max(abs(a.value - b.value) for a, b in zip(before, after, strict=True)) > 1e-4


def test_gpt_adds_both_orders_of_numbers_unasked_and_reads_labels_as_they_came():
    samples, start = pairs(4), tiny.start("gpt")
    task = task_of(samples, **METHODS["gpt"].task_options)
    model = join(start, task, tiny.recipe("full"), 0)
    batch = task_batch(task, start.codec, samples, task.rows(start.codec, samples), gold=False)
    assert batch.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    encoded = start.encoder.eval()(batch)
    head = model.model.head.eval()
    wanted = head.layers[-1](encoded.summary.view(4, 2, -1).sum(1))  # section 3.3
    torch.testing.assert_close(head(encoded, batch)["logits"], wanted)
    labels = Classification("one", ("a", "b"), **METHODS["gpt"].task_options)
    assert all(len(rows) == 1 for rows in labels.rows(start.codec, samples))
    assert all(len(rows) == 1 for rows in task.rows(tiny.start("bert").codec, samples))


def test_a_turned_row_keeps_the_numbers_of_the_sample_s_texts():
    codec = tiny.start("ulmfit").codec
    one = sample("good film", "bad plot", gold=1.0)
    ((given, back),) = Classification("number", orders="both").rows(codec, [one])
    for row in (given, back):
        said = {
            part: "".join(
                one.texts[part][a:b] for p, (a, b) in zip(row.part, row.chars, strict=True) if p == part
            )
            for part in (0, 1)
        }
        assert said == {0: "goodfilm", 1: "badplot"}
    assert next(p for p in given.part if p >= 0) == 0 and next(p for p in back.part if p >= 0) == 1


def test_rows_of_both_orders_are_added_or_averaged():
    summary = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 1.0]])
    batch = Batch(*[torch.zeros(3, 1)] * 3, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(by_owner(summary, batch), torch.tensor([[2.0, 3.5], [7.0, 1.0]]))
    torch.testing.assert_close(by_owner(summary, batch, add=True), torch.tensor([[4.0, 7.0], [7.0, 1.0]]))


def test_a_number_is_shared_out_between_the_levels_around_it():
    shares = shares_of_levels([0.0, 2.0, 3.8, 5.0], (0, 5))
    wanted = [[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0.2, 0.8, 0], [0, 0, 0, 0, 0, 1]]
    torch.testing.assert_close(shares, torch.tensor(wanted))
    torch.testing.assert_close(shares_of_levels([1.25, 5.0], (1, 5))[0], torch.tensor([0.75, 0.25, 0, 0, 0]))


def test_the_expected_level_of_a_sure_softmax_is_the_number():
    values = [0.0, 0.4, 2.75, 5.0]
    logits = shares_of_levels(values, (0, 5)).clamp(min=1e-30).log()
    assert expected_level(logits, (0, 5)).tolist() == pytest.approx(values, abs=1e-5)


def test_levels_are_learned_by_soft_cross_entropy():
    samples = pairs(4)
    model = join(tiny.start("wordvectors"), task_of(samples, levels=(0, 5)), tiny.recipe("full"), 0)
    model.model.eval()
    codec, task = model.start.codec, model.learned
    batch = task_batch(task, codec, samples, task.rows(codec, samples), gold=True)
    output = model.model(batch)
    logs = output.scores["logits"].log_softmax(-1)
    wanted = -(shares_of_levels([s.gold for s in samples], (0, 5)) * logs).sum()
    torch.testing.assert_close(output.loss, wanted)
    assert model.model.head.targets(batch) == 4


@pytest.mark.parametrize("levels", [None, (0, 5)], ids=["regression", "levels"])
def test_a_handful_of_pairs_is_learned_saved_and_answered_alike(levels, tmp_path: Path):
    samples = pairs(12)
    task = task_of(samples, orders="both", of_rows="sum", levels=levels, dropout=0.0)
    recipe = tiny.recipe("full", epochs=60, batch_size=6)
    model, _ = finetune(tiny.start("elmo"), task, recipe, samples, [], Fitting(quiet=True))
    answers = model.answers(samples)
    assert task.score([s.gold for s in samples], answers)["pearson"] > 0.8
    assert levels is None or all(0 <= answer.value <= 5 for answer in answers)
    model.save(tmp_path / "model", {})
    assert load_trained(tmp_path / "model").task == task
    assert Predictor.load(tmp_path / "model").answer(samples) == answers


def test_both_orders_go_on_predicting_their_texts():
    samples = pairs(4)
    start = tiny.start("ulmfit")
    joint = Joint(task_of(samples, orders="both"))
    batch = task_batch(joint, start.codec, samples, joint.rows(start.codec, samples), gold=True)
    head = joint.head(start.encoder)
    assert len(batch.ids) == 8
    assert torch.isfinite(head.loss(head(start.encoder(batch), batch), batch))


def test_levels_and_both_orders_are_explained():
    samples = pairs(6)
    task = task_of(samples, orders="both", levels=(0, 5))
    model = join(tiny.start("wordvectors"), task, tiny.recipe("full"), 0)
    explanation = Explainer(Predictor(model)).explain(samples[0])
    (answer,) = model.answers(samples[:1])
    assert explanation.score == pytest.approx(answer.value, abs=1e-6)
    assert explanation.gap == pytest.approx(0, abs=1e-4)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"task\.orders is 'some'; choose one of method, given, both"):
        Classification("number", orders="some")
    with pytest.raises(UsageError, match=r"task\.of_rows is 'max'"):
        Classification("number", of_rows="max")
    with pytest.raises(UsageError, match=r"siamese, which reads no text after another"):
        Classification("number", orders="both", pair="siamese")
    with pytest.raises(UsageError, match=r"task\.levels is for golds that are a number"):
        Classification("one", ("a", "b"), levels=(0, 5))
    with pytest.raises(UsageError, match=r"leave task\.y_range out"):
        Classification("number", levels=(0, 5), y_range=(0, 5))
    with pytest.raises(UsageError, match=r"task\.levels is \[5, 0\]"):
        Classification("number", levels=(5, 0))
    with pytest.raises(UserError, match=r"the number 5, outside task\.levels \[0, 4\]"):
        task_of(pairs(6), levels=(0, 4)).fitted_to(pairs(6))
    with pytest.raises(UserError, match=r"has 1 text; task\.orders is both"):
        Classification("number", orders="both").rows(tiny.start("ulmfit").codec, [sample("a", key="1")])
