"""Adam as the releases of GPT and BERT have it: each differs from today's `AdamW`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from pretune.training.optimizers import noted


@dataclass(frozen=True)
class OpenAIAdam:
    """Adam of the OpenAI Transformer's release (`opt.py`). At step t, counted from 1,

        c = sqrt(1 - beta2^t) / (1 - beta1^t)
        p <- p - rate c (m / (sqrt(v) + eps) + decay p)

    so that epsilon stands beside the square root as it is, before any correction for bias (Kingma & Ba's
    epsilon hat), and the decay is corrected as the step is: 0.32 of it at the first, 0.31 at the hundredth,
    0.80 at the thousandth. What has one dimension or none, biases and norms, does not decay. The release
    clips the gradient's norm to 1 (`Stage.clip`) and takes `OpenAILinear` rates.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    decay_vectors: bool = False  # the release's `vector_l2`: biases and norms decay as well
    bias_correction: bool = True  # False: c = 1

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        parts = groups if self.decay_vectors else _by_rank(groups)
        betas = (self.beta1, self.beta2)
        return noted(PublishedAdam(parts, betas, self.eps, self.bias_correction, corrected_decay=True))


@dataclass(frozen=True)
class BERTAdam:
    """Adam of BERT's release (`optimization.py`), which never corrects the moments for their start at zero:

        p <- p - rate (m / (sqrt(v) + eps) + decay p)

    The first steps are larger than Adam's, 3.2 times at the very first, which few samples feel (Zhang et al.
    2021, section 4); `bias_correction` mends that, and leaves the decay as it is. Norms and biases do not
    decay in the release: `Group.decay_all=False`. It clips the gradient's norm to 1 (`Stage.clip`) and takes
    `BERTLinear` rates.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = False

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return noted(PublishedAdam(groups, betas, self.eps, self.bias_correction, corrected_decay=False))


class PublishedAdam(torch.optim.Optimizer):
    """p <- p - rate (c m / (sqrt(v) + eps) + d p): c corrects the bias or is 1, d is the decay or c times it.

    One pass of torch's fused AdamW, whose own corrections are undone beforehand in rate, epsilon and decay:
    exact but for rounding, at the price of that pass alone. All weights of a group share one count of steps,
    which is kept with the group; a weight without a gradient stays as it is.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        betas: tuple[float, float],
        eps: float,
        bias_correction: bool,
        corrected_decay: bool,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "betas": betas, "eps": eps, "steps": 0})
        self.bias_correction, self.corrected_decay = bias_correction, corrected_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                group["steps"] += 1
                self._step(group, moving)

    def _step(self, group: dict[str, Any], moving: list[Tensor]) -> None:
        (beta1, beta2), t, decay = group["betas"], group["steps"], group["weight_decay"]
        states = [self._state(p) for p in moving]
        root, first = sqrt(1 - beta2**t), 1 - beta1**t  # what torch divides sqrt(v) and m by
        adamw(
            moving,
            [p.grad for p in moving if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            _counts(moving, t - 1),  # torch adds the 1
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"] * (1.0 if self.bias_correction else first / root),
            weight_decay=decay if self.bias_correction and not self.corrected_decay else decay * root / first,
            eps=group["eps"] / root,
        )

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state


def _counts(moving: list[Tensor], steps: int) -> list[Tensor]:
    """A scalar for each weight, on its device, as torch wants it."""
    devices = {p.device for p in moving}
    counts = {device: torch.full((len(moving),), float(steps), device=device) for device in devices}
    return [counts[p.device][n] for n, p in enumerate(moving)]


def _by_rank(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Vectors and scalars in groups of their own, without decay."""
    parts = []
    for group in groups:
        for own, decay in (
            ([p for p in group["params"] if p.dim() > 1], group["weight_decay"]),
            ([p for p in group["params"] if p.dim() <= 1], 0.0),
        ):
            if own:
                parts.append({**group, "params": own, "weight_decay": decay})
    return parts
