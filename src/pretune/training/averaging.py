"""SGD with averaged weights, from the start or once the loss stops falling (Merity et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


class AveragedSGD(torch.optim.Optimizer):
    """w ← w - rate (gradient + decay w), and while `averaging` the mean of the weights since it began.

    `torch.optim.ASGD(t0=0, lambd=0)`, which the released `main.py` takes, down to its first step, which
    counts for nothing in the mean. A departure: that class notices a changed rate one step late; here, where
    rates follow the length of the window, each step has its own.
    """

    def __init__(self, groups: list[dict[str, Any]], averaging: bool = False) -> None:
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0, "averaging": averaging})

    @property
    def averaging(self) -> bool:
        return bool(self.param_groups[0]["averaging"])

    def begin(self) -> None:
        """Average from the next step on."""
        for group in self.param_groups:
            group["averaging"] = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                p.add_(gradient, alpha=-group["lr"])
                if group["averaging"]:
                    state = self.state[p]
                    state["steps"] = state.get("steps", 0) + 1
                    if state["steps"] < 3:
                        state["average"] = p.clone()
                    else:
                        state["average"].lerp_(p, 1 / (state["steps"] - 1))

    @torch.no_grad()
    def swap(self) -> None:
        """Weights and their averages change places; twice leaves all as it was."""
        for p, state in self.state.items():
            if "average" in state:
                running = p.clone()
                p.copy_(state["average"])
                state["average"].copy_(running)


@dataclass(frozen=True)
class NTASGD:
    """SGD that begins to average once the held-out loss is worse than the best of all but the last epochs."""

    non_monotone: int = 5  # how many last epochs are not compared with

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return AveragedSGD(groups)

    def after_epoch(self, optimizer: torch.optim.Optimizer, losses: Sequence[float]) -> bool:
        assert isinstance(optimizer, AveragedSGD)
        if not optimizer.averaging and no_longer_falls(losses, self.non_monotone):
            optimizer.begin()
        return False


@dataclass(frozen=True)
class ASGD:
    """SGD that averages from its first step and ends by that same criterion: the released `finetune.py`."""

    non_monotone: int = 5  # how many last epochs are not compared with

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return AveragedSGD(groups, averaging=True)

    def after_epoch(self, optimizer: torch.optim.Optimizer, losses: Sequence[float]) -> bool:
        return no_longer_falls(losses, self.non_monotone)


def no_longer_falls(losses: Sequence[float], last: int) -> bool:
    """Whether the newest loss is worse than the best of those before it, its `last` predecessors aside."""
    *before, newest = losses
    return len(before) > last and newest > min(before[: len(before) - last])


def unwrapped(optimizer: Any) -> Any:
    """The optimizer itself where accelerate's scaler stands around it."""
    return getattr(optimizer, "optimizer", optimizer)


@contextmanager
def averaged(optimizer: Any) -> Iterator[None]:
    """Inside, weights are their averages, if `optimizer` keeps any: what is validated and kept."""
    inner = unwrapped(optimizer)
    if not isinstance(inner, AveragedSGD):
        yield
        return
    inner.swap()
    try:
        yield
    finally:
        inner.swap()


def settle(optimizer: Any) -> None:
    """A stage is over: its averages, if there are any, become the weights."""
    inner = unwrapped(optimizer)
    if isinstance(inner, AveragedSGD):
        inner.swap()
