"""GPT learns from raw text: the paper's settings, losses that fall, runs that resume, perplexity of all."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
from gpt_models import CONTEXT, QUIET, codec, corpus, documents, encoder, held_out, language_model
from pretune.config import build, to_dict, update
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.keys import key
from pretune.methods.gpt.adopting import adopt
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.language import MARKS, PlainText
from pretune.methods.gpt.pretraining import ADAPTATION, PRETRAINING, GPTPretraining
from pretune.methods.gpt.tokens import GPTCodec
from pretune.runs.run import TABLES
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.tensors.batch import collate
from pretune.tensors.windows import ScoredWindows
from pretune.training.optimizers import AdamW
from pretune.training.published_optimizers import OpenAIAdam
from pretune.training.schedules import OpenAIWarmup, WarmupCosine

QUICK = GPTPretraining(epochs=6, sequences=8, lr=0.02)


def test_settings_are_the_papers() -> None:
    wide = GPT.__new__(GPT)
    torch.nn.Module.__init__(wide)
    wide.width = 768
    wide.groups = lambda: [torch.nn.Linear(1, 1)]  # type: ignore[method-assign]
    stage = PRETRAINING.stage(wide, 100, 1_000_000)
    (group,) = stage.groups
    assert (group.lr, group.weight_decay, stage.clip) == (2.5e-4, 0.01, 1.0)
    assert stage.optimizer == OpenAIAdam(0.9, 0.999, 1e-8) and stage.schedule == OpenAIWarmup(
        "cosine", updates=2000
    )
    assert PRETRAINING.sequences == 64 and ADAPTATION.lr is None
    assert PRETRAINING.stage(wide, 1, 300).schedule == OpenAIWarmup(
        "cosine", updates=30
    )  # a tenth of a short run
    wide.width = 192
    assert PRETRAINING.stage(wide, 1, 300).groups[0].lr == pytest.approx(1e-3)
    other = replace(PRETRAINING, schedule="cosine_after_warmup", optimizer="adamw").stage(wide, 1, 300)
    assert other.schedule == WarmupCosine(updates=30) and other.optimizer == AdamW(0.9, 0.999, 1e-8)


def test_matrices_decay_and_vectors_do_not() -> None:
    made = encoder(codec())
    for setting in (QUICK, replace(QUICK, optimizer="adamw")):
        stage = setting.stage(made, 1, 10)
        groups = stage.optimizer.build(stage.optimized()).param_groups
        decayed = {p for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed == {p for p in made.parameters() if p.dim() > 1}
        assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"optimizer": "adamw", "schedule": "cosine_after_warmup"},
        {"candidates": 30},
        {"across": True},
    ],
    ids=str,
)
def test_a_language_model_is_learned(setting: dict[str, Any]) -> None:
    text = codec()
    made = encoder(text, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)
    found = replace(QUICK, **setting).run(made, text, corpus, held_out, QUIET)
    assert found["perplexity"] < 4 < text.size / 8  # what follows what, and where sayings end: one in three
    assert made.active == "task" and not made.training


def test_every_dropout_is_learned_with_and_the_last_epoch_is_reported() -> None:
    text = codec()
    made = encoder(text, embedding_dropout_mode="weight")
    found = replace(QUICK, epochs=2).run(made, text, corpus, None, QUIET)
    assert found["train_perplexity"] < text.size
    made.tokens.train()
    assert not torch.equal(made.embedding_weight, made.tokens.weight)


def test_perplexity_counts_each_token_but_the_first_of_a_document_once() -> None:
    text = codec()
    model = language_model(text, bolder=20.0)
    read = text.ids(list(held_out()))
    ids, starts = np.concatenate(read), np.cumsum([0, *map(len, read)])
    assert isinstance(model.encoder, GPT)
    model.encoder.purpose("language_model")
    nats, short = [], [document[: CONTEXT + 1] for document in read]
    for document in short:  # each token by itself, given all before it
        for t in range(1, len(document)):
            top, _ = model.encoder.read_on(torch.tensor([document[:t]]), None)
            logits = top[0, -1] @ model.encoder.tokens.weight[:-MARKS].t()
            nats.append(float(F.cross_entropy(logits[None], torch.tensor([document[t]])).detach()))
    source = ScoredWindows(np.concatenate(short), np.cumsum([0, *map(len, short)]), CONTEXT, rows=3)
    found = stream_scores(model, model.head, source)
    assert found["tokens"] == len(nats)
    assert found["perplexity"] == pytest.approx(exp(sum(nats) / len(nats)), rel=1e-4)
    whole = stream_scores(model, model.head, ScoredWindows(ids, starts, CONTEXT, rows=3, overlap=8))
    assert whole["tokens"] == len(ids) - len(read)
    model.encoder.purpose("task")


def test_more_context_lowers_a_learned_models_perplexity() -> None:
    text = codec()
    made = encoder(text)
    replace(QUICK, epochs=5).run(made, text, corpus, held_out, QUIET)
    said = []
    for overlap in (0.0, 0.5):
        setting = replace(QUICK, overlap=overlap, epochs=1, lr=0.0)
        said.append(setting.run(made, text, corpus, held_out, QUIET))
    assert said[0]["tokens"] == said[1]["tokens"]
    assert said[0]["perplexity"] > said[1]["perplexity"]


def test_a_run_that_is_resumed_ends_where_one_that_was_not_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretune.training import loop

    text, setting = codec(), replace(QUICK, epochs=3)
    whole = encoder(text)
    scores = setting.run(whole, text, corpus, held_out, QUIET)

    class StoppedError(Exception):
        pass

    calls = 0
    step = loop.train_step

    def stopping(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 17:
            raise StoppedError
        step(*arguments)

    fitting = replace(QUIET, folder=tmp_path / "checkpoints", checkpoint_steps=5)
    monkeypatch.setattr(loop, "train_step", stopping)
    with pytest.raises(StoppedError):
        setting.run(encoder(text), text, corpus, held_out, fitting)
    monkeypatch.setattr(loop, "train_step", step)
    resumed = encoder(text, seed=0)
    assert setting.run(resumed, text, corpus, held_out, replace(fitting, resume=True)) == scores
    for name, x in whole.state_dict().items():
        assert torch.equal(x, resumed.state_dict()[name]), name
    assert len(list((tmp_path / "checkpoints" / "tokens").iterdir())) == 2  # not encoded anew


def test_marks_are_neither_predicted_nor_moved() -> None:
    text = codec()
    made = encoder(text)
    before = made.tokens.weight[-MARKS:].detach().clone()
    replace(QUICK, epochs=1, weight_decay=10.0).run(made, text, corpus, None, QUIET)
    assert torch.equal(made.tokens.weight[-MARKS:], before)
    head = PlainText().head(made)
    assert head.logits(torch.zeros(1, 16)).shape == (1, text.size - MARKS)
    (rows,) = PlainText().rows(text, [sample("the cat")])
    assert rows[0].ids == text.ids(["the cat"])[0]
    assert NextToken().rows(text, [sample("the cat")])[0][0].ids[-1] == text.classify_id


def test_a_budget_of_steps_ends_the_run_and_its_schedule() -> None:
    text = codec()
    found = replace(QUICK, epochs=100, max_steps=7).run(encoder(text), text, corpus, None, QUIET)
    assert found["trained_tokens"] < 8 * 8 * 1.5 * CONTEXT


def test_a_rate_is_found_and_the_encoder_left_alone() -> None:
    text = codec()
    made = encoder(text)
    before = {name: x.clone() for name, x in made.state_dict().items()}
    found = QUICK.find_rates(made, text, corpus, QUIET)
    assert found.stage == "all" and len(found.rates) > 5
    assert all(torch.equal(x, before[name]) for name, x in made.state_dict().items())


def test_old_weights_are_taken_over_by_their_pieces() -> None:
    text = codec()
    old, same = encoder(text), encoder(text, seed=1)
    adopt(old, text, same, text)
    assert all(torch.equal(x, old.state_dict()[name]) for name, x in same.state_dict().items())
    other = GPTCodec.learn(lambda: [*documents(5, 3), "zebras quack loudly " * 3], text.config)
    new = encoder(other, seed=1)
    adopt(old, text, new, other)
    for piece, i in other.vocab.ids.items():
        known = text.vocab.ids.get(piece)
        wanted = old.tokens.weight.mean(0) if known is None else old.tokens.weight[known]
        torch.testing.assert_close(new.tokens.weight[i], wanted)
    assert set(other.vocab.ids) - set(text.vocab.ids) and torch.equal(
        new.positions.weight, old.positions.weight
    )
    with pytest.raises(UserError, match=r"the encoders differ in positions\.weight"):
        adopt(old, text, encoder(text, context=8), text)
    with pytest.raises(UsageError, match="only one GPT"):
        adopt(tiny.start("ulmfit").encoder, text, new, text)


def test_settings_survive_a_file_and_mistakes_are_named() -> None:
    assert build(GPTPretraining, to_dict(QUICK), "pretraining", TABLES) == QUICK
    for changes, message in (
        ({"optimizer": "adam"}, "pretraining.optimizer"),
        ({"schedule": "linear"}, "pretraining.schedule"),
        ({"sequences": 0}, "pretraining.sequences is 0; give 1 or more"),
        ({"warmup_steps": -1}, "pretraining.warmup_steps is -1"),
        ({"warmup_share": 1.5}, "pretraining.warmup_share is 1.5; it must be between 0 and 1"),
        ({"overlap": 1.0}, "pretraining.overlap is 1.0; it must be between 0 and 0.99"),
        ({"weight_decay": -1.0}, "pretraining.weight_decay is -1.0; it must be at least 0"),
    ):
        with pytest.raises(UsageError, match=message):
            update(PRETRAINING, changes, "pretraining", TABLES)
    start = tiny.start("ulmfit")
    with pytest.raises(UsageError, match="for GPT only"):
        QUICK.run(start.encoder, start.codec, corpus, None, QUIET)


def test_rows_are_dealt_so_that_dropout_follows_from_seed_and_step_alone() -> None:
    text = codec()
    first, second = (encoder(text) for _ in range(2))
    one = replace(QUICK, epochs=1).run(first, text, corpus, None, QUIET)
    torch.manual_seed(key("something else"))
    assert replace(QUICK, epochs=1).run(second, text, corpus, None, QUIET) == one
    batch = collate([[row] for row in PlainText().rows(text, [sample("the cat")])[0]], text.pad_id)
    first.purpose("language_model")
    second.purpose("language_model")
    assert torch.equal(first(batch).layers[-1], second(batch).layers[-1])
