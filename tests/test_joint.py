"""A task beside its own texts: GPT's L2 + lambda L1 by the release's formula; BERT's masked words."""

from __future__ import annotations

import io
import re
from copy import deepcopy
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from pretune.data.samples import Sample, sample
from pretune.errors import UsageError
from pretune.keys import generator
from pretune.methods.bert.encoder import BERT
from pretune.recipes.full import Full
from pretune.tasks.base import Task
from pretune.tasks.joint import TEXT, Joint, masked
from pretune.training.loop import fit
from pretune.training.model import Model
from pretune.training.optimizers import SGD
from pretune.training.progress import Bar, Lines
from pretune.training.sources import SampleSource
from tiny_training import everything, quietly
from transformer_tasks import (
    BERT_CODEC,
    CHOICE,
    GPT_CODEC,
    QUESTIONS,
    SAMPLES,
    STILL,
    TASK,
    batch_of,
    bert,
    codec_of,
    gpt,
    model_of,
    still,
    trained,
)


def by_release(encoder: Any, head: Any, task: Task, samples: list[Sample], weight: float) -> Tensor:
    """mean_e(clf_loss) + lm_coef mean_s(lm_loss), where lm_loss[s] is the mean over a sequence's targets."""
    batch = batch_of(task, encoder, samples)
    top = encoder(batch).layers[-1]
    logits = top[:, :-1] @ encoder.tokens.weight.T  # (N, T-1, V)
    each = F.cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")  # (N, T-1)
    M = batch.mask[:, 1:].float()
    lm = (each * M).sum(1) / M.sum(1)
    classified = head.main.loss(head.main(encoder(batch), batch), batch) / len(samples)
    return classified + weight * lm.mean()


@pytest.mark.parametrize(("task", "samples"), [(TASK, SAMPLES), (CHOICE, QUESTIONS)], ids=["one", "choice"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_gpts_loss_and_gradient_are_the_releases(task: Task, samples: list[Sample], weight: float) -> None:
    encoder = gpt(embedding_dropout=0, attention_dropout=0, residual_dropout=0)
    torch.manual_seed(1)
    head = Joint(task, weight).head(encoder).eval()
    with torch.no_grad():
        for p in [*encoder.parameters(), *head.parameters()]:
            p.add_(0.2 * torch.randn_like(p))
    batch = batch_of(task, encoder, samples)
    gradients = []
    for loss in (
        head.loss(head(encoder(batch), batch), batch) / head.targets(batch),
        by_release(encoder, head, task, samples, weight),
    ):
        gradients.append((loss, torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)))
    (ours, by_ours), (theirs, by_theirs) = gradients
    torch.testing.assert_close(ours, theirs)
    for x, y in zip(by_ours, by_theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_every_mark_but_the_first_is_predicted_and_every_choice_counts() -> None:
    encoder = gpt().eval()
    batch = batch_of(CHOICE, encoder, QUESTIONS)
    marks = {GPT_CODEC.delimiter_id, GPT_CODEC.classify_id}
    assert all(marks <= set(ids[mask].tolist()[1:]) for ids, mask in zip(batch.ids, batch.mask, strict=True))
    head: Any = Joint(CHOICE).head(encoder).eval()
    with torch.no_grad():
        before = head.auxiliary(head(encoder(batch), batch), batch)
        for n in range(len(batch.ids)):  # whichever row is read otherwise, the wrong choices too
            top = encoder(batch).layers[-1].clone()
            top[n] *= 2
            assert head.auxiliary({"top": top}, batch) != before
        top = encoder(batch).layers[-1].clone()
        top[~batch.mask] = 1e3  # padding is no target, and nothing is predicted from it
        after_last = batch.lengths - 1
        top[torch.arange(len(top)), after_last] = 1e3
        torch.testing.assert_close(head.auxiliary({"top": top}, batch), before)


@pytest.mark.parametrize("build", [gpt, bert])
@pytest.mark.parametrize(("task", "samples"), [(TASK, SAMPLES), (CHOICE, QUESTIONS)], ids=["one", "choice"])
def test_losses_of_batches_add_up_to_that_of_all_samples(
    build: Any, task: Task, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = still(build).eval()

    def every_second(batch: Any, mask_id: int, words: int, chance: Any) -> tuple[Tensor, Tensor]:
        asked = batch.given[TEXT] & (torch.arange(batch.ids.shape[1]) % 2 == 0)  # whatever the batch
        return batch.ids.masked_fill(asked, mask_id), asked

    monkeypatch.setattr("pretune.tasks.joint.masked", every_second)
    head: Any = Joint(task).head(encoder).eval()
    joint = Joint(task)

    def loss_of(some: list[Sample]) -> tuple[float, float]:
        batch = batch_of(joint, encoder, some)
        loss, parts = head.loss_and_parts(head(encoder(batch), batch), batch)
        return float(loss.detach()), float(parts[head.objective].detach())

    whole = loss_of(samples)
    each = [loss_of([one]) for one in samples]
    assert whole[0] == pytest.approx(sum(loss for loss, _ in each), rel=1e-5)
    assert whole[1] == pytest.approx(sum(part for _, part in each), rel=1e-5)


def test_accumulating_batches_of_one_takes_the_step_of_one_batch() -> None:
    ends = []
    for size, accumulate in ((4, 1), (2, 2), (1, 4)):
        encoder = still(gpt)
        model = model_of(Full(auxiliary=0.5), encoder, STILL)
        source = SampleSource(Joint(STILL), GPT_CODEC, SAMPLES, size, seed=0)
        stages = everything(model, lr=0.5, optimizer=SGD())  # Adam would make whole steps of rounding errors
        # a last batch of one sample would join the one before it
        fitted = fit(model, stages, OneByOne(source) if size == 1 else source, quietly(accumulate=accumulate))
        assert fitted.steps == 1
        ends.append({name: x.detach().clone() for name, x in model.state_dict().items()})
    for end in ends[1:]:
        for name, x in ends[0].items():
            torch.testing.assert_close(end[name], x, rtol=1e-4, atol=1e-6)


class OneByOne:
    """A source's samples alone."""

    carries = False

    def __init__(self, source: SampleSource) -> None:
        self.source, self.task = source, source.task

    def steps(self, epoch: int) -> int:
        return len(SAMPLES)

    def batch(self, epoch: int, step: int) -> Any:
        return batch_of(self.task, gpt(), [SAMPLES[step]])


def test_a_text_of_nothing_but_marks_counts_nothing_and_breaks_nothing() -> None:
    empty = [sample("", gold="yes"), sample("", gold="no")]
    for build in (gpt, bert):
        encoder = build().eval()
        joint = Joint(TASK)
        head: Any = joint.head(encoder).eval()
        batch = batch_of(joint, encoder, empty)
        loss, parts = head.loss_and_parts(head(encoder(batch), batch), batch)
        assert torch.isfinite(loss)
        loss.backward()
        if build is bert:
            assert parts["masked_words"] == 0


# Masked words

LONG = [sample("the good dog sat on the mat and a bad cat ran", gold="yes") for _ in range(300)]


def test_masks_are_berts() -> None:
    batch = batch_of(Joint(TASK), bert(), LONG)
    ids, asked = masked(batch, BERT_CODEC.mask_id, BERT_CODEC.size, torch.Generator().manual_seed(0))
    lengths, text = batch.lengths, batch.given[TEXT]
    assert not asked[~text].any() and not ids.eq(BERT_CODEC.mask_id)[~asked].any()
    assert torch.equal(asked.sum(1), (0.15 * lengths).round().long())
    assert torch.equal(ids[~asked], batch.ids[~asked])
    hidden = (ids == BERT_CODEC.mask_id)[asked].float().mean()
    kept = (ids == batch.ids)[asked].float().mean()
    assert hidden == pytest.approx(0.8, abs=0.05) and kept == pytest.approx(0.1, abs=0.05)
    spread = asked[:, text[0]].float().mean(0)
    assert spread.min() > 0.05 and spread.max() < 0.3  # every word, about as often


def test_every_text_has_a_mask_and_padding_none() -> None:
    joint, encoder = Joint(TASK), bert()
    batch = batch_of(joint, encoder, SAMPLES)
    for seed in range(20):
        _, asked = masked(batch, 4, 60, torch.Generator().manual_seed(seed))
        assert bool(asked.any(1).all()) and not asked[~batch.mask].any()


def test_berts_auxiliary_loss_is_that_of_the_masked_words_and_leaves_the_answers_alone() -> None:
    encoder, joint = still(bert).eval(), Joint(TASK, 0.7)
    head: Any = joint.head(encoder).eval()
    batch = batch_of(joint, encoder, SAMPLES)
    loss, parts = head.loss_and_parts(head(encoder(batch), batch), batch)
    plain = head.main.loss(head.main(encoder(batch), batch), batch)
    assert torch.equal(parts["task"], plain)  # read as they stand, not with masks
    assert isinstance(encoder, BERT) and encoder.mlm_bias is not None
    assert head.loss(head(encoder(batch), batch), batch) == loss  # out of training nothing is left to chance
    ids, asked = masked(batch, BERT_CODEC.mask_id, BERT_CODEC.size, generator("masked words"))
    wanted = torch.zeros(())
    for n in range(len(ids)):
        row = deepcopy(batch)
        row.ids, row.mask, row.segments = ids[n : n + 1], batch.mask[n : n + 1], batch.segments[n : n + 1]
        hidden = encoder.mlm_hidden(encoder(row).layers[-1][0, asked[n]])
        logits = hidden @ encoder.words.weight.T + encoder.mlm_bias
        wanted = wanted + F.cross_entropy(logits, batch.ids[n, asked[n]])
    torch.testing.assert_close(parts["masked_words"], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, plain + 0.7 * wanted, rtol=1e-4, atol=1e-5)


def test_masks_change_from_step_to_step_and_are_the_same_in_the_same_run() -> None:
    ends = [trained(Full(epochs=3, auxiliary=0.5), bert())[1].history for _ in range(2)]
    assert [entry["losses"] for entry in ends[0]] == [entry["losses"] for entry in ends[1]]
    other = trained(Full(epochs=3, auxiliary=0.5), bert(), seed=1)[1].history
    assert other[0]["losses"] != ends[0][0]["losses"]


def test_a_bert_without_what_predicts_words_says_so() -> None:
    with pytest.raises(UsageError, match="masked words, which this BERT lacks"):
        Joint(TASK).head(bert().for_task())


# Both losses


@pytest.mark.parametrize(("build", "name"), [(gpt, "next_tokens"), (bert, "masked_words")])
def test_both_losses_fall_and_stand_in_the_history_before_their_weight(build: Any, name: str) -> None:
    _, fitted = trained(Full(lr=0.02, epochs=45, auxiliary=0.5), build())
    for entry in fitted.history:
        assert entry["losses"].keys() == {"task", name}
        whole = entry["losses"]["task"] + 0.5 * entry["losses"][name]
        assert entry["loss"] == pytest.approx(whole, rel=1e-5)
    first, last = fitted.history[0]["losses"], fitted.history[-1]["losses"]
    assert last["task"] < first["task"] / 2 and last[name] < first[name]


def test_a_task_alone_has_one_loss() -> None:
    assert all("losses" not in entry for entry in trained(Full(epochs=1), gpt())[1].history)


def test_both_losses_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "seconds_between", 0.0)
    trained(Full(epochs=1, auxiliary=0.5), gpt(), quiet=False)
    step, epoch = capsys.readouterr().err.strip().splitlines()
    for line in (step, epoch):
        assert re.search(r"loss \d\.\d+ \(task \d\.\d+, next tokens \d\.\d+\)", line)
    bar = Bar("x", Console(file=io.StringIO(), force_terminal=True))
    bar.epoch({"epoch": 0, "loss": 2.0, "losses": {"task": 0.5, "next_tokens": 3.0}, "scores": {}})
    assert "loss 2 (task 0.5, next tokens 3)" in bar.rich.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_with_two_losses_goes_on_to_the_bit(tmp_path: Any) -> None:
    recipe = Full(epochs=4, batch_size=2, auxiliary=0.5)

    class Broken(SampleSource):
        def batch(self, epoch: int, step: int) -> Any:
            if (epoch, step) == (2, 1):
                raise KeyboardInterrupt
            return super().batch(epoch, step)

    def run(kind: Any, **options: Any) -> tuple[Model, Any]:
        encoder = bert()
        model = model_of(recipe, encoder)
        source = kind(recipe.task(TASK), codec_of(encoder), SAMPLES, 2, seed=0)
        return model, fit(model, recipe.stages(model.encoder, model.head), source, quietly(**options))

    whole, fitted = run(SampleSource)
    with pytest.raises(KeyboardInterrupt):
        run(Broken, folder=tmp_path, checkpoint_steps=1)
    again, resumed = run(SampleSource, folder=tmp_path, checkpoint_steps=1, resume=True)
    for name, x in whole.state_dict().items():
        assert torch.equal(x, again.state_dict()[name]), name
    assert [x["losses"] for x in fitted.history] == [x["losses"] for x in resumed.history]


@pytest.mark.parametrize("build", [gpt, bert])
def test_answering_computes_no_auxiliary_loss_and_hands_on_no_layer(build: Any) -> None:
    encoder = build().eval()
    head = Joint(TASK).head(encoder).eval()
    batch = batch_of(Joint(TASK), encoder, SAMPLES, gold=False)
    assert head(encoder(batch), batch).keys() == {"logits"}
