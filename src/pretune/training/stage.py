"""One leg of training: which weights move, how fast, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from pretune.training.optimizers import AdamW, Optimizer
from pretune.training.schedules import Constant, Schedule


@dataclass(frozen=True)
class Group:
    """Modules that move together at one rate."""

    name: str
    modules: tuple[nn.Module, ...]
    lr: float
    weight_decay: float = 0.0  # decoupled, per step, times the rate

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules for p in module.parameters()]


@dataclass(frozen=True)
class Stage:
    """What is in no group is frozen: no gradient, and `eval()`, so no dropout either."""

    name: str
    groups: tuple[Group, ...]
    epochs: int = 1
    schedule: Schedule = field(default_factory=Constant)  # factor on every group's rate, per step
    optimizer: Optimizer = field(default_factory=AdamW)
    clip: float | None = None  # largest gradient norm


def plan(stages: Sequence[Stage]) -> list[dict[str, object]]:
    """Stages as plain rows for `--plan`: stage, epochs, group, rate, parameters, schedule."""
    return [
        {
            "stage": stage.name,
            "epochs": stage.epochs,
            "group": group.name,
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "parameters": sum(p.numel() for p in group.parameters()),
            "optimizer": stage.optimizer,
            "schedule": stage.schedule,
        }
        for stage in stages
        for group in stage.groups
    ]
