"""The optimizers of GPT's and BERT's releases, step by step against their formulas in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import cos, pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretune.config import build, to_dict
from pretune.errors import UsageError
from pretune.runs.run import TABLES
from pretune.training.loop import fit
from pretune.training.optimizers import AdamW, Optimizer, set_momentum
from pretune.training.published_optimizers import BERTAdam, OpenAIAdam
from pretune.training.schedules import BERTLinear, OpenAIWarmup, Schedule, WarmupCosine
from pretune.training.stage import Group, Stage
from tiny_training import TinySource, everything, loss_of, quietly, tiny_model, weights_of

STEPS = 200


class Net(nn.Module):
    """A matrix, a bias, the two vectors of a norm, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.norm = nn.Linear(5, 4), nn.LayerNorm(4)
        self.double()


def gradients(net: nn.Module, seed: int) -> list[Tensor]:
    """Some tiny, so that epsilon is felt, and some large, so that they are clipped."""
    chance = torch.Generator().manual_seed(seed)
    size = 10.0 ** (seed % 12 - 9)
    return [size * torch.randn(p.shape, generator=chance, dtype=torch.float64) for p in net.parameters()]


def by_formula(
    lr: float, schedule: Callable[[float], float], decay: float, bert: bool, eps: float
) -> list[Tensor]:
    """The blocks of the specification: t from 0, tt = t + 1, T steps in all."""
    net = Net()
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    m = {name: torch.zeros_like(p) for name, p in weights.items()}
    v = {name: torch.zeros_like(p) for name, p in weights.items()}
    for t in range(STEPS):
        g = dict(zip(weights, gradients(net, t), strict=True))
        norm = sqrt(sum(float((x * x).sum()) for x in g.values()))
        rate = lr * schedule(t / STEPS)
        if not bert:
            rate *= sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        for name, p in weights.items():
            x = g[name] * min(1.0, 1.0 / norm)
            m[name] = 0.9 * m[name] + 0.1 * x
            v[name] = 0.999 * v[name] + 0.001 * x * x
            spared = name.startswith("norm") or name.endswith("bias") if bert else p.dim() <= 1
            p -= rate * (m[name] / (v[name].sqrt() + eps) + (0.0 if spared else decay) * p)
    return list(weights.values())


def trained(optimizer: Optimizer, schedule: Schedule, lr: float, decay: float) -> list[Tensor]:
    """The same by a stage, as the loop goes about it; the clip by hand, for torch adds 1e-6 to the norm."""
    net = Net()
    group = Group("all", (net,), lr, decay, decay_all=not isinstance(optimizer, BERTAdam))
    stage = Stage("all", (group,), 1, schedule, optimizer, clip=1.0)
    made = optimizer.build(stage.optimized())
    for t in range(STEPS):
        found = gradients(net, t)
        norm = sqrt(sum(float((x * x).sum()) for x in found))
        for p, x in zip(net.parameters(), found, strict=True):
            p.grad = x * min(1.0, 1.0 / norm)
        for part in made.param_groups:
            part["lr"] = part["initial_lr"] * stage.factor(t, STEPS, 1)
        made.step()
    return [p.detach() for p in net.parameters()]


OPENAI: dict[str, Callable[[float, float], float]] = {
    "linear": lambda x, w: (x / w if x <= w else 1) * (1 - x),
    "constant": lambda x, w: x / w if x <= w else 1,
    "cosine": lambda x, w: x / w if x <= w else 0.5 * (1 + cos(pi * x)),
}


@pytest.mark.parametrize("shape", OPENAI)
def test_openai_adam_is_the_releases_for_200_steps(shape: Any) -> None:
    wanted = by_formula(0.01, lambda x: OPENAI[shape](x, 0.05), 0.01, bert=False, eps=1e-8)
    found = trained(OpenAIAdam(), OpenAIWarmup(shape, 0.05), 0.01, 0.01)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-13)


def test_bert_adam_is_the_releases_for_200_steps() -> None:
    wanted = by_formula(0.01, lambda x: x / 0.1 if x < 0.1 else 1 - x, 0.01, bert=True, eps=1e-6)
    for x, y in zip(trained(BERTAdam(), BERTLinear(0.1), 0.01, 0.01), wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-13)


def stepped(optimizer: Optimizer, decay: float, size: float, steps: int = 1) -> Tensor:
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    made = optimizer.build([{"params": [weight], "lr": 0.1, "weight_decay": decay}])
    for _ in range(steps):
        weight.grad = torch.full_like(weight, size)
        made.step()
    return 1 - weight.detach()[0, 0]


def test_what_tells_the_releases_from_adam() -> None:
    # epsilon before the correction: of gradients of 1e-8 the first step is 1/(1 + 1/0.0316) of Adam's half
    assert stepped(AdamW(), 0, 1e-8) == pytest.approx(0.05, rel=1e-6)
    assert stepped(OpenAIAdam(), 0, 1e-8) == pytest.approx(0.1 * sqrt(0.001) / (sqrt(0.001) + 1), rel=1e-6)
    # the decay is corrected as the step is: 0.316 of it at the first, 0.309 at the hundredth
    assert stepped(OpenAIAdam(), 0.5, 0) == pytest.approx(0.05 * sqrt(0.001) / 0.1)
    before, after = (1 - stepped(OpenAIAdam(), 0.5, 0, n) for n in (99, 100))
    assert (1 - after / before) / 0.05 == pytest.approx(0.309, abs=1e-3)
    assert stepped(AdamW(), 0.5, 0) == stepped(BERTAdam(), 0.5, 0) == pytest.approx(0.05)
    # no correction of the moments: sqrt(1000)/10 of a step
    assert stepped(BERTAdam(), 0, 1.0) == pytest.approx(0.1 * sqrt(10), rel=1e-4)
    assert stepped(BERTAdam(bias_correction=True), 0, 1.0) == pytest.approx(0.1, rel=1e-4)
    assert stepped(BERTAdam(bias_correction=True), 0.5, 0) == pytest.approx(0.05)
    assert stepped(OpenAIAdam(bias_correction=False), 0, 1.0) == pytest.approx(0.1 * sqrt(10), rel=1e-4)


def test_biases_and_norms_decay_only_if_asked_to() -> None:
    for optimizer, wanted in ((OpenAIAdam(), 1.0), (OpenAIAdam(decay_vectors=True), 0.5)):
        vector = nn.Parameter(torch.ones(3))
        matrix = nn.Parameter(torch.ones(3, 1))
        groups = [{"params": [vector, matrix], "lr": 1.0, "weight_decay": 0.5 / (sqrt(0.001) / 0.1)}]
        made = optimizer.build(groups)
        vector.grad, matrix.grad = torch.zeros(3), torch.zeros(3, 1)
        made.step()
        assert vector.tolist() == pytest.approx([wanted] * 3)
        assert matrix.flatten().tolist() == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("optimizer", [OpenAIAdam(), BERTAdam()])
def test_a_weight_without_a_gradient_stays_and_the_count_goes_on(optimizer: Optimizer) -> None:
    one, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    made = optimizer.build([{"params": [one, other], "lr": 0.1, "weight_decay": 0.1}])
    one.grad = torch.ones(2, 2)
    made.step()
    assert torch.equal(other, torch.ones(2, 2)) and not torch.equal(one, other)
    assert made.param_groups[0]["steps"] == 1


@pytest.mark.parametrize("optimizer", [OpenAIAdam(), BERTAdam()])
def test_caches_notice_that_weights_have_moved(optimizer: Optimizer) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    made = optimizer.build([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
    set_momentum(made.param_groups[0], 0.8)
    before, weight.grad = weight._version, torch.ones(2, 2)
    made.step()
    assert weight._version > before


@pytest.mark.parametrize("optimizer", [OpenAIAdam(), BERTAdam()])
def test_a_run_that_was_interrupted_goes_on_to_the_bit(optimizer: Optimizer, tmp_path: Any) -> None:
    class Broken(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            if (epoch, step) == (1, 4):
                raise KeyboardInterrupt
            return super().batch(epoch, step)

    ends = []
    for kill in (False, True):
        model = tiny_model()
        stages = everything(model, 3, optimizer=optimizer, schedule=OpenAIWarmup(), clip=1.0)
        options: dict[str, Any] = {"folder": tmp_path, "checkpoint_steps": 3} if kill else {}
        if kill:
            broken = copy.deepcopy(model)
            with pytest.raises(KeyboardInterrupt):
                again = everything(broken, 3, optimizer=optimizer, schedule=OpenAIWarmup(), clip=1.0)
                fit(broken, again, Broken(), quietly(**options), loss_of, "loss", False)
            options["resume"] = True
        fit(model, stages, TinySource(), quietly(**options), loss_of, "loss", False)
        ends.append(weights_of(model))
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())


def test_all_settings_survive_a_config() -> None:
    chosen: list[tuple[type, Any]] = [
        (Optimizer, OpenAIAdam(0.8, decay_vectors=True)),
        (Optimizer, BERTAdam(bias_correction=True)),
        (Schedule, OpenAIWarmup("cosine", updates=2000, step_offset=1)),
        (Schedule, WarmupCosine(0.2)),
        (Schedule, BERTLinear(updates=10)),
    ]
    for base, thing in chosen:
        assert build(base, to_dict(thing, TABLES), "optimizer", TABLES) == thing
    with pytest.raises(UsageError, match="'wave'"):
        OpenAIWarmup("wave")  # type: ignore[arg-type]
