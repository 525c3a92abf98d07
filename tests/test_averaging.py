"""SGD that averages its weights, and what a stage does beside the rate: momentum, windows, decay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretune.keys import key
from pretune.training.averaging import ASGD, NTASGD, AveragedSGD, no_longer_falls
from pretune.training.loop import Interrupted, fit
from pretune.training.model import Model
from pretune.training.optimizers import AdamW
from pretune.training.schedules import Constant, MomentumCycle, OneCycle
from pretune.training.stage import Group, Stage
from tiny_training import TinySource, everything, loss_of, quietly, tiny_model, weights_of

LOSSES = [3.0, 2.0, 2.5, 2.1, 2.6, 2.4, 2.3, 2.2]  # scripted, so that the criterion is met in epoch 4


def scripted(model: Model, losses: Sequence[float], seen: list[dict[str, torch.Tensor]]) -> Any:
    """A `validate` that tells such losses and remembers the weights that it was shown."""

    def validate(model: Model) -> dict[str, float]:
        seen.append(weights_of(model))
        return {"loss": losses[len(seen) - 1]}

    return validate


def by_hand(model: Model, losses: Sequence[float], lr: float, decay: float, clip: float, last: int) -> Any:
    """The loop of the released `main.py` with torch's own SGD and ASGD; weights as it evaluates them."""
    source, weights = TinySource(5), list(model.parameters())
    shown: list[dict[str, torch.Tensor]] = []
    past: list[float] = []
    optimizer: Any = torch.optim.SGD(weights, lr, weight_decay=decay)
    model.train()
    step = 0
    for epoch, loss in enumerate(losses):
        carry = None
        for n in range(source.steps(epoch)):
            batch = source.batch(epoch, n)
            torch.manual_seed(key(0, "step", 0, step, 0))
            output = model(batch, carry)
            optimizer.zero_grad()
            (output.loss / model.head.targets(batch)).backward()
            torch.nn.utils.clip_grad_norm_(weights, clip)
            optimizer.step()
            carry = tuple(x.detach() for x in output.carry)
            step += 1
        running = [p.detach().clone() for p in weights]
        if isinstance(optimizer, torch.optim.ASGD):
            for p in weights:
                if "ax" in optimizer.state[p]:
                    p.data = optimizer.state[p]["ax"].clone()
        shown.append(weights_of(model))
        for p, was in zip(weights, running, strict=True):
            p.data = was
        if not isinstance(optimizer, torch.optim.ASGD):
            if len(past) > last and loss > min(past[:-last]):
                optimizer = torch.optim.ASGD(weights, lr, t0=0, lambd=0.0, weight_decay=decay)
            past.append(loss)
    return shown


def test_nt_asgd_goes_the_way_of_the_released_loop() -> None:
    ours, theirs = tiny_model(), tiny_model()
    shown: list[dict[str, torch.Tensor]] = []
    stage = Stage("all", (Group("all", (ours,), 0.5, 1e-3),), len(LOSSES), Constant(), NTASGD(2), 0.25)
    fitted = fit(ours, [stage], TinySource(5), quietly(), scripted(ours, LOSSES, shown), "loss", False)
    expected = by_hand(theirs, LOSSES, 0.5, 1e-3, 0.25, 2)
    assert len(shown) == len(expected) == len(LOSSES)
    for mine, other in zip(shown, expected, strict=True):
        for name, x in mine.items():
            torch.testing.assert_close(x, other[name], rtol=1e-5, atol=1e-6)
    assert fitted.best["loss"] == 2.0
    assert all(torch.equal(x, shown[1][name]) for name, x in weights_of(ours).items())


def test_it_averages_only_once_the_loss_has_stopped_falling() -> None:
    assert not no_longer_falls([3.0, 2.0, 2.5], 2)  # too early to tell
    assert not no_longer_falls([3.0, 2.0, 2.5, 2.1], 2)  # compared with 3.0 alone
    assert no_longer_falls([3.0, 2.0, 2.5, 2.1, 2.6], 2)
    assert not no_longer_falls([3.0, 2.0, 2.5, 2.1, 2.0], 2)
    assert no_longer_falls([2.0, 2.1], 0)
    weight = nn.Parameter(torch.ones(1))
    optimizer = AveragedSGD([{"params": [weight], "lr": 1.0}])
    states = []
    for loss in LOSSES[:5]:
        weight.grad = torch.ones(1)
        optimizer.step()
        states.append(optimizer.averaging)
        assert not NTASGD(2).after_epoch(optimizer, LOSSES[: LOSSES.index(loss) + 1])
    assert states == [False] * 5 and optimizer.averaging and not optimizer.state


def test_without_validation_a_run_ends_with_the_averaged_weights() -> None:
    model, other = tiny_model(dropout=0.0), tiny_model(dropout=0.0)
    fit(model, everything(model, 2, lr=0.5, optimizer=ASGD()), TinySource(5), quietly())
    shown: list[dict[str, torch.Tensor]] = []
    validate = scripted(other, [2.0, 1.0], shown)
    fit(
        other,
        everything(other, 2, lr=0.5, optimizer=ASGD()),
        TinySource(5),
        quietly(),
        validate,
        "loss",
        False,
    )
    assert all(torch.equal(x, shown[-1][name]) for name, x in weights_of(model).items())


def test_averaging_from_the_start_ends_when_the_loss_stops_falling() -> None:
    model = tiny_model()
    stages = everything(model, len(LOSSES), lr=0.5, optimizer=ASGD(non_monotone=2))
    fitted = fit(model, stages, TinySource(5), quietly(), scripted(model, LOSSES, []), "loss", False)
    assert len(fitted.history) == 5


@pytest.mark.parametrize("stop", [13, 22, 24, 31])
def test_nt_asgd_resumed_is_nt_asgd_uninterrupted(stop: int, tmp_path: Path) -> None:
    """Stopped before the switch, in the epoch that brings it, right after it and while it averages."""
    from pretune.training.run import Run

    def run(model: Model, losses: Sequence[float], **options: Any) -> Any:
        stages = everything(model, len(LOSSES), lr=0.5, optimizer=NTASGD(2), clip=0.25)

        def validate(model: Model) -> dict[str, float]:
            return {"loss": LOSSES[said.pop(0)], "real": loss_of(model)["loss"]}

        said = list(range(len(LOSSES) - len(losses), len(LOSSES)))
        return fit(model, stages, TinySource(5), quietly(**options), validate, "loss", False)

    whole, cut = tiny_model(), tiny_model()
    expected = run(whole, LOSSES)
    agree = Run.agree

    def stopping(self: Run, *args: Any) -> list[float]:
        if self.state.step == stop:
            self.interrupts.noted = True
        return agree(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Run, "agree", stopping)
        run(cut, LOSSES, folder=tmp_path)
    resumed = tiny_model()
    found = run(resumed, LOSSES[stop // 5 :], folder=tmp_path, resume=True)
    assert [e["scores"] for e in found.history] == [e["scores"] for e in expected.history]
    assert all(torch.equal(x, weights_of(whole)[name]) for name, x in weights_of(resumed).items())


def test_one_cycle_with_its_momentum_takes_the_steps_of_fastai() -> None:
    pytest.importorskip("fastai.optimizer", reason="fastai is the oracle")
    from fastai.callback.schedule import combined_cos
    from fastai.optimizer import Adam

    ours, theirs = tiny_model(dropout=0.0), tiny_model(dropout=0.0)
    stage = Stage(
        "all",
        (Group("all", (ours,), 0.05, 0.1, decay_all=False),),
        2,
        OneCycle(),
        AdamW(0.8, 0.99, 1e-5),
        momentum=MomentumCycle(),
    )
    fit(ours, [stage], TinySource(10, carries=False), quietly())
    bare = [
        p for name, p in theirs.named_parameters() if name.startswith("head.norm") or name.endswith("bias")
    ]
    rest = [p for name, p in theirs.named_parameters() if all(p is not q for q in bare)]
    adam = Adam([rest, bare], lr=0.05, mom=0.8, sqr_mom=0.99, eps=1e-5, wd=0.1)
    adam.hypers[1]["wd"] = 0.0
    rates, momenta = combined_cos(0.25, 0.05 / 25, 0.05, 0.05e-5), combined_cos(0.25, 0.8, 0.7, 0.8)
    theirs.train()
    theirs.encoder.unused.requires_grad_(False)
    for step in range(20):
        batch = TinySource().batch(step // 10, step % 10)
        adam.set_hyper("lr", rates(step / 20))
        adam.set_hyper("mom", momenta(step / 20))
        (theirs(batch).loss / theirs.head.targets(batch)).backward()
        adam.step()
        adam.zero_grad()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)


def test_weight_decay_spares_norms_and_biases_but_not_those_of_an_lstm() -> None:
    model = tiny_model()
    (stage,) = everything(model)
    group = Group("all", (model,), 1.0, 0.1, decay_all=False)
    decayed, spared = Stage("all", (group,)).optimized()
    named = {p: name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0.0
    assert sorted(named[p] for p in spared["params"]) == [
        "encoder.below.linear.bias",
        "encoder.unused.bias",
        "head.norm.bias",
        "head.norm.weight",
        "head.output.bias",
    ]
    assert "encoder.recurrent.bias_hh_l0" in {named[p] for p in decayed["params"]}
    assert len(stage.optimized()) == 1


def test_rates_follow_the_length_of_a_window() -> None:
    model = tiny_model()
    stage = Stage("all", (Group("all", (model,), 0.5),), window=10)  # the tiny source's windows have 5 tokens
    fitted = fit(model, [stage], TinySource(3), quietly())
    assert fitted.history[0]["lr"] == pytest.approx(0.25)
    assert stage.factor(0, 1, 20) == 2.0
