"""The learning-rate finder: fastai's rates and suggestions, and nothing left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pretune.errors import UsageError, UserError
from pretune.training.loop import fit
from pretune.training.lr_find import find_rates, minimum, steep, suggested, valley
from pretune.training.optimizers import SGD
from pretune.training.schedules import MomentumCycle, OneCycle
from pretune.training.stage import Group, Stage
from tiny_training import TinySource, everything, quietly, tiny_model, weights_of


def test_the_search_leaves_everything_as_it_was() -> None:
    model, other = tiny_model(), tiny_model()
    weights = weights_of(model)
    model.encoder.embedding.requires_grad_(False)  # type: ignore[union-attr]
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = find_rates(model, everything(model)[0], TinySource(), quietly())
    assert len(found.rates) > 50
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(x, weights[name]) for name, x in weights_of(model).items())  # buffers as well
    assert all(p.requires_grad == ("embedding" not in name) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(True)
    for one in (model, other):
        fit(one, everything(one), TinySource(), quietly())
    assert all(torch.equal(x, weights_of(other)[name]) for name, x in weights_of(model).items())


def test_rates_rise_by_one_factor_and_losses_are_smoothed_as_in_fastai() -> None:
    model = tiny_model(dropout=0.0)
    groups = Group("fast", (model.head,), 0.4), Group("slow", (model.encoder,), 0.1)
    stage = Stage("all", groups, 7, OneCycle(), SGD(), momentum=MomentumCycle(), window=3)
    found = find_rates(model, stage, TinySource(4), quietly(), 1e-3, 10.0, 40)
    expected = [1e-3 * (10.0 / 1e-3) ** (i / 40) for i in range(40)]
    assert found.rates == pytest.approx(expected[: len(found.rates)])

    twin = tiny_model(dropout=0.0).train()
    fast, slow = ({"params": list(part.parameters())} for part in (twin.head, twin.encoder))
    twin.encoder.unused.requires_grad_(False)  # type: ignore[union-attr]
    optimizer = torch.optim.SGD([fast, slow], 1.0)
    carry: Any = None
    mean, losses = 0.0, []
    for step in range(len(found.rates)):
        carry = None if step % 4 == 0 else carry
        batch = TinySource(4).batch(step // 4, step % 4)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = expected[step], expected[step] / 4
        output = twin(batch, carry)
        carry = tuple(x.detach() for x in output.carry)
        optimizer.zero_grad()
        assert output.loss is not None and output.reported is not None
        (output.loss / twin.head.targets(batch)).backward()
        optimizer.step()
        mean = 0.98 * mean + 0.02 * float(output.reported) / twin.head.targets(batch)
        losses.append(mean / (1 - 0.98 ** (step + 1)))
    assert found.losses == pytest.approx(losses, rel=1e-4)


def test_it_ends_where_the_loss_is_four_times_the_lowest() -> None:
    model = tiny_model()
    found = find_rates(model, everything(model, optimizer=SGD())[0], TinySource(), quietly(), 1e-3, 1e8, 60)
    assert len(found.losses) < 60
    assert max(found.losses[:-1]) <= 4 * min(found.losses)


def test_a_stage_with_frozen_weights_is_searched_with_them_frozen() -> None:
    model = tiny_model()
    only = Stage("head", (Group("head", (model.head,), 1.0),))
    found = find_rates(model, only, TinySource(), quietly())
    whole = find_rates(model, everything(model)[0], TinySource(), quietly())
    assert found.losses != whole.losses


@pytest.mark.parametrize("seed", range(6))
def test_suggestions_are_those_of_fastai(seed: int) -> None:
    schedule = pytest.importorskip("fastai.callback.schedule", reason="fastai is the oracle")
    chance = np.random.default_rng(seed)
    rates = np.geomspace(1e-7, 10, 80)
    losses = 4 - 2 / (1 + np.exp(-np.log10(rates) * 2 - 6)) + np.maximum(0, np.log10(rates)) ** 2 * 3
    losses += chance.normal(0, 0.02 * seed, 80)
    x, y = torch.tensor(rates), torch.tensor(losses)
    for ours, theirs in ((valley, schedule.valley), (minimum, schedule.minimum), (steep, schedule.steep)):
        assert ours(rates, losses) == pytest.approx(theirs(x, y, 100)[0])


def test_senseless_searches_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match="give 20 or more"):
        find_rates(model, everything(model)[0], TinySource(), quietly(), steps=5)
    with pytest.raises(UsageError, match="give 20 or more"):
        find_rates(model, everything(model)[0], TinySource(), quietly(), first=1.0, last=0.1)
    with pytest.raises(UserError, match="leaves all bounds"):
        suggested([0.1, 0.5], [1.0, 9.0], 100)
