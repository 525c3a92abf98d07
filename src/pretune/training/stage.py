"""One leg of training: which weights move, how fast, for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from pretune.errors import UsageError, UserError
from pretune.training.optimizers import AdamW, Optimizer
from pretune.training.schedules import Constant, Schedule

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Group:
    """Modules that move together at one rate."""

    name: str
    modules: tuple[nn.Module, ...]
    lr: float
    weight_decay: float = 0.0  # decoupled, per step, times the rate
    decay_all: bool = True  # False: none for norms and for what is called bias, as fastai 2

    def parameters(self) -> list[nn.Parameter]:
        return list(dict.fromkeys(p for module in self.modules for p in module.parameters()))

    def spared(self) -> set[nn.Parameter]:
        """Weights without decay. The biases of an LSTM are not among them: fastai knows them not as such."""
        if self.decay_all:
            return set()
        inner = [module for outer in self.modules for module in outer.modules()]
        return {
            p
            for module in inner
            for name, p in module.named_parameters(recurse=False)
            if isinstance(module, NORMS) or name == "bias" or name.endswith("_bias")
        }


@dataclass(frozen=True)
class Stage:
    """What is in no group is frozen: no gradient, and `eval()`, so no dropout either.

    A module that merely holds others trains when all weights in it do; one without any weights
    (dropout, pooling) does as its holder.
    """

    name: str
    groups: tuple[Group, ...]
    epochs: int = 1
    schedule: Schedule = field(default_factory=Constant)  # factor on every group's rate, per step
    optimizer: Optimizer = field(default_factory=AdamW)
    clip: float | None = None  # largest gradient norm
    momentum: Schedule | None = None  # Adam's first decay at each step; None: the optimizer's own
    window: int | None = None  # tokens of a row at which rates are as said, in proportion otherwise
    least_steps: int = 0  # more epochs where those said have fewer steps

    def lengthened(self, steps: int) -> Stage:
        """With as many epochs, of so many steps each, as `least_steps` asks for."""
        return replace(self, epochs=max(self.epochs, -(-self.least_steps // max(1, steps))))

    def factor(self, step: int, steps: int, tokens: float) -> float:
        """Of every group's rate at a step whose rows have so many tokens."""
        return self.schedule(step, steps) * (1.0 if self.window is None else tokens / self.window)

    def optimized(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer. A tied weight moves with the first group that has it."""
        seen: set[nn.Parameter] = set()
        groups = []
        for group in self.groups:
            own = [p for p in group.parameters() if p not in seen]
            seen.update(own)
            spared = group.spared()
            for part, decay in (
                ([p for p in own if p not in spared], group.weight_decay),
                ([p for p in own if p in spared], 0.0),
            ):
                if part:
                    rate = {"lr": group.lr, "initial_lr": group.lr, "weight_decay": decay}
                    groups.append({"params": part, "name": group.name} | rate)
        if not groups:
            raise UserError(f"stage {self.name!r} has no weights to train; put modules into its groups")
        return groups

    def thaw(self, model: nn.Module) -> None:
        """Gradients for this stage's weights and for no others."""
        model.requires_grad_(False)
        for group in self.optimized():
            for parameter in group["params"]:
                parameter.requires_grad_(True)

    def train(self, model: nn.Module) -> None:
        """Training mode for what trains, `eval()` for what is frozen."""
        _set_modes(model, True, {module for group in self.groups for module in group.modules})
        model.training = True


def _set_modes(module: nn.Module, holder: bool, training: set[nn.Module]) -> None:
    weights = list(module.parameters())
    module.training = all(p.requires_grad for p in weights) if weights else holder
    for child in module.children():
        if child in training:
            child.train()
        else:
            _set_modes(child, module.training, training)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Gradients are asked of the same weights afterwards as before; the model is in `eval()`."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)
        model.zero_grad()
        model.eval()


def stage_numbered(stages: Sequence[Stage], number: int) -> Stage:
    """By its number in the plan, counted from 1; -1 is the last."""
    if number != -1 and not 1 <= number <= len(stages):
        named = ", ".join(f"{n} ({stage.name})" for n, stage in enumerate(stages, start=1))
        raise UsageError(f"there is no stage {number}; choose one of {named}")
    return stages[number - 1 if number > 0 else -1]


def plan(stages: Sequence[Stage]) -> list[dict[str, object]]:
    """Stages as plain rows for `--plan`: a row for each group of each, with what is its stage's."""
    return [
        {
            "stage": stage.name,
            "epochs": stage.epochs,
            "least_steps": stage.least_steps,
            "group": group.name,
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "parameters": sum(p.numel() for p in group.parameters()),
            "optimizer": stage.optimizer,
            "schedule": stage.schedule,
            "momentum": stage.momentum,
            "clip": stage.clip,
        }
        for stage in stages
        for group in stage.groups
    ]
