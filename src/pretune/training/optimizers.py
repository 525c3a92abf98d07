"""Optimizers as frozen descriptions, made real for the groups of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch


class Optimizer(Protocol):
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer: ...


@runtime_checkable
class Watching(Protocol):
    """An optimizer that changes its ways by held-out losses."""

    def after_epoch(self, optimizer: torch.optim.Optimizer, losses: Sequence[float]) -> bool:
        """`losses` of the stage's epochs, low is good, the newest last; True if the stage is over."""
        ...


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), fused: 11 times fastai's on a CPU."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return noted(torch.optim.AdamW(groups, betas=(self.beta1, self.beta2), eps=self.eps, fused=True))


@dataclass(frozen=True)
class Adagrad:
    """Steps shrink with all squares seen so far (Duchi et al. 2011); no epsilon, as TensorFlow has it."""

    accumulator: float = 1.0  # sum of squares before the first step

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        fused = all(p.device.type == "cpu" for group in groups for p in group["params"])
        return noted(
            torch.optim.Adagrad(
                groups, eps=0.0, initial_accumulator_value=self.accumulator, fused=fused or None
            )
        )


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent."""

    momentum: float = 0.0

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=self.momentum)


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Adam's first decay, or what plain SGD calls momentum."""
    if "betas" in group:
        group["betas"] = (momentum, group["betas"][1])
    else:
        group["momentum"] = momentum


def noted(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Weights say that they have changed, which fused steps forget: caches made of them look there."""

    def note(stepped: torch.optim.Optimizer, *_: Any) -> None:
        for group in stepped.param_groups:
            torch.autograd.graph.increment_version(group["params"])

    optimizer.register_step_post_hook(note)
    return optimizer
