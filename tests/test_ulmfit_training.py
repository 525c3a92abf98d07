"""How ULMFiT's language model is trained: by averaged SGD or one cycle, on windows of varying length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pretune.config import build, to_dict, update
from pretune.errors import UsageError
from pretune.layers.regularisation import activation_penalty
from pretune.methods.ulmfit.pretraining import ADAPTATION, PRETRAINING, AveragedSGD, UlmfitPretraining
from pretune.runs.run import TABLES
from pretune.tasks.next_token import NextToken
from pretune.tensors.streams import StreamSource
from pretune.training.averaging import ASGD, NTASGD
from pretune.training.optimizers import AdamW
from pretune.training.schedules import Constant, MomentumCycle, OneCycle, SlantedTriangular
from test_ulmfit import QUICK, QUIET, corpus, held_out, start

RELEASE = replace(
    QUICK, lr=PRETRAINING.lr, optimizer="nt_asgd", variable_windows=True, rescale_rate=True, beta=1.0
)


def test_nt_asgd_has_the_settings_of_the_release() -> None:
    encoder, _ = start()
    (only,) = RELEASE.stages(encoder, NextToken().head(encoder), 500)
    assert only.optimizer == NTASGD(5) and only.schedule == Constant() and only.clip == 0.25
    assert only.momentum is None and only.window == 10
    for group in only.optimized():  # all weights, the decoder's bias as well
        assert (group["lr"], group["weight_decay"]) == (30.0, 1.2e-6)
    assert only.factor(0, 1, 35) == 3.5
    second = replace(RELEASE, optimizer="asgd", sgd=AveragedSGD(lr=10, non_monotone=3))
    (only,) = second.stages(encoder, NextToken().head(encoder), 500)
    assert only.optimizer == ASGD(3) and only.groups[0].lr == 10


def test_one_cycle_has_the_settings_of_fastai() -> None:
    encoder, _ = start()
    (only,) = replace(PRETRAINING, eps=1e-5).stages(encoder, NextToken().head(encoder), 10)
    assert only.optimizer == AdamW(0.8, 0.99, 1e-5)
    assert only.schedule == OneCycle() and only.momentum == MomentumCycle(0.8, pytest.approx(0.7))  # type: ignore[arg-type]
    spared = [p for group in only.optimized() if not group["weight_decay"] for p in group["params"]]
    assert len(spared) == 1 and spared[0] is encoder.decoder_bias
    first, _ = ADAPTATION.stages(encoder, NextToken().head(encoder), 10)
    assert first.momentum is not None
    slanted = replace(PRETRAINING, schedule="slanted_triangular")
    (only,) = slanted.stages(encoder, NextToken().head(encoder), 10)
    assert only.momentum is None and isinstance(only.schedule, SlantedTriangular)
    first, then = replace(ADAPTATION, optimizer="nt_asgd").stages(encoder, NextToken().head(encoder), 10)
    assert isinstance(first.optimizer, AdamW) and isinstance(first.schedule, OneCycle)
    assert isinstance(then.optimizer, NTASGD) and then.groups[0].lr == 30


@pytest.mark.parametrize("optimizer", ["sgd", "nt_asgd", "asgd"])
def test_a_language_model_learns_by_each_optimizer(optimizer: Any) -> None:
    encoder, codec = start()
    setting = replace(RELEASE, optimizer=optimizer, epochs=10, sgd=AveragedSGD(lr=6.0, non_monotone=1))
    scores = setting.run(encoder, codec, corpus, held_out, QUIET)
    assert scores["perplexity"] < codec.size / 2


def test_settings_survive_a_file_and_mistakes_name_the_right_one() -> None:
    setting = update(RELEASE, {"sgd": {"lr": 12.5}}, "pretraining", TABLES)
    assert setting.sgd.lr == 12.5
    assert build(UlmfitPretraining, to_dict(setting), "pretraining", TABLES) == setting
    for changes, message in (
        ({"optimizer": "adam"}, "pretraining.optimizer"),
        ({"optimizer": "nt_asgd", "lr": 10.0}, "the rate of nt_asgd is pretraining.sgd.lr"),
        ({"sgd": {"lr": 10.0}}, "pretraining.sgd is for sgd"),
        ({"rescale_rate": True}, "add variable_windows"),
        ({"restarts": 1.5}, "between 0 and 1"),
        ({"beta1_at_peak": 0.5, "schedule": "constant"}, "for adamw in one cycle"),
        ({"optimizer": "sgd", "beta1_at_peak": 0.5}, "for adamw in one cycle"),
        ({"schedule": "cosine"}, "pretraining.schedule"),
        ({"divisors": (0.0, 1.0, 1.0)}, "give numbers above 0"),
        ({"beta1": 1.5}, "pretraining.beta1 is 1.5; it must be between 0 and 0.9999"),
        ({"drop_mult": -1.0}, "pretraining.drop_mult is -1.0; it must be at least 0"),
        ({"optimizer": "sgd", "sgd": {"non_monotone": -1}}, r"pretraining.sgd.non_monotone is -1"),
    ):
        with pytest.raises(UsageError, match=message):
            update(PRETRAINING, changes, "pretraining", TABLES)
    with pytest.raises(UsageError, match="nt_asgd looks at held-out loss"):
        RELEASE.run(*start(), corpus, None, QUIET)
    with pytest.raises(UsageError, match=r"dropout 'input', its drop_mult applied, is 2.25; it must be in"):
        replace(QUICK, drop_mult=9.0).run(*start(), corpus, None, QUIET)


def test_every_token_but_the_first_is_trained_once_an_epoch_wherever_windows_begin() -> None:
    ids, starts = np.arange(2, 99), np.array([0, 10, 11, 60, 97])
    for options in ({"variable": True, "window": 12}, {"window": 5}):
        source = StreamSource(ids, starts, 1, seed=3, **options)  # type: ignore[arg-type]
        seen = [source.batch(0, step) for step in range(source.steps(0))]
        read = torch.cat([batch.ids for batch in seen], 1)
        asked = torch.cat([batch.gold["next"] for batch in seen], 1)
        assert torch.equal(read[0, 1:], asked[0, :-1])
        assert sorted([int(read[0, 0]), *asked[0].tolist()]) == ids.tolist()


def test_windows_vary_as_the_release_draws_them() -> None:
    source = StreamSource(np.zeros(600_000, int), np.array([0, 600_000]), 1, 70, variable=True)
    lengths = np.diff(source._cuts(0))[:-1]
    short = lengths < 52
    assert 0.03 < short.mean() < 0.07 and lengths.min() >= 5
    assert lengths[~short].mean() == pytest.approx(69.5, abs=0.5)  # cut down to whole numbers
    assert lengths[~short].std() == pytest.approx(5, abs=0.4)
    assert lengths[short].mean() == pytest.approx(34.5, abs=1.5)


def test_windows_that_begin_at_zero_read_as_if_nothing_came_before() -> None:
    encoder, codec = start()
    encoder.purpose("language_model", 0)
    ids = np.random.default_rng(0).integers(0, codec.size, 400)
    settings = {"streams": 4, "window": 10, "seed": 1}
    source = StreamSource(ids, np.array([0, 400]), **settings, restarts=0.5)  # type: ignore[arg-type]
    assert not StreamSource(ids, np.array([0, 400]), **settings).batch(0, 0).given  # type: ignore[arg-type]
    batches = [source.batch(0, step) for step in range(source.steps(0))]
    drawn = torch.stack([batch.given["restart"] for batch in batches])
    assert 0.3 < drawn.float().mean() < 0.7 and len(drawn.unique(dim=0)) > 3
    assert torch.equal(source.batch(0, 3).given["restart"], drawn[3])
    step = next(step for step in range(1, len(batches)) if 0 < drawn[step].sum() < 4)
    carry = encoder(batches[step - 1]).carry
    found, alone = encoder(batches[step], carry).layers[-1], encoder(batches[step]).layers[-1]
    batches[step].given.clear()
    going_on = encoder(batches[step], carry).layers[-1]
    for row, restarts in enumerate(drawn[step].tolist()):
        expected = alone if restarts else going_on
        torch.testing.assert_close(found[row], expected[row])
    assert replace(QUICK, epochs=1, restarts=0.3).run(encoder, codec, corpus, None, QUIET)["train_loss"] > 0


def test_penalties_are_those_of_fastai_two() -> None:
    rnn = pytest.importorskip("fastai.callback.rnn", reason="fastai is the oracle")
    raw, dropped = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    regularizer = rnn.RNNRegularizer(alpha=2.0, beta=1.0)
    regularizer.learn = SimpleNamespace(
        training=True, loss_grad=torch.zeros(()), rnn=SimpleNamespace(out=dropped, raw_out=raw)
    )
    regularizer.after_loss()
    ours = activation_penalty(dropped, raw, torch.ones(3, 7, dtype=torch.bool), 2.0, 1.0)
    torch.testing.assert_close(ours, regularizer.learn.loss_grad)


def test_a_rate_is_found_and_the_encoder_left_alone(tmp_path: Path) -> None:
    encoder, codec = start()
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    found = replace(QUICK, frozen_epochs=1).find_rates(encoder, codec, corpus, QUIET)
    assert 1e-5 < found.suggestions["valley"] < 1
    assert encoder.active == "task"
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())
    first = replace(QUICK, frozen_epochs=1).find_rates(encoder, codec, corpus, QUIET, stage=1)
    assert first.losses != found.losses
    with pytest.raises(UsageError, match="there is no stage 3; choose one of 1"):
        replace(QUICK, frozen_epochs=1).find_rates(encoder, codec, corpus, QUIET, stage=3)
