"""Gradual unfreezing: thaw from the top, slower below (ULMFiT)."""

from __future__ import annotations

from dataclasses import dataclass

from pretune.encoder import Encoder
from pretune.recipes.limits import check
from pretune.recipes.names import all_groups
from pretune.tasks.base import Head, Task
from pretune.training.optimizers import AdamW
from pretune.training.schedules import SlantedTriangular
from pretune.training.stage import Group, Stage


@dataclass(frozen=True)
class Gradual:
    """The head alone for an epoch, then one more layer with each epoch, then everything.

    Howard & Ruder (2018), sections 3.2 and 3.3: rates fall by 2.6 with every layer below the head
    (discriminative fine-tuning), and rise and fall within each stage (slanted triangles). It is made for
    pretrained encoders with few labels; from scratch it would freeze layers that know nothing: use `Full`.
    """

    lr: float = 0.01
    """Peak rate of the head; the layer below gets lr / factor, the next lr / factor²."""
    factor: float = 2.6
    """How much slower each layer is than the one above it (section 3.2); 1 gives all one rate."""
    epochs: int = 8
    """Passes with everything thawed. The paper trains to convergence, up to 50 on large data."""
    thaw_epochs: int = 1
    """Passes of each stage before that."""
    batch_size: int = 32
    """Samples a step, as in the released script."""
    cut_frac: float = 0.1
    """Share of a stage's steps spent climbing (eq. 3)."""
    ratio: float = 32.0
    """Peak rate over lowest rate (eq. 3)."""
    beta1: float = 0.7
    """Adam's first decay, section 4.1; the released scripts took 0.8."""
    beta2: float = 0.99
    """Adam's second decay, section 4.1."""
    weight_decay: float = 0.01
    """Decoupled decay, as in fastai 2; the released script had 1e-6 in the loss."""
    clip: float | None = 25.0
    """Largest gradient norm, as in the released script."""
    alpha: float = 2.0
    """Activation regularisation (AR) of the top layer, which the release keeps for the classifier."""
    beta: float = 1.0
    """Temporal activation regularisation (TAR) of the top layer."""

    def __post_init__(self) -> None:
        check(self)

    def task(self, task: Task) -> Task:
        return task

    def wrap(self, encoder: Encoder) -> Encoder:
        return encoder

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        top_down = [("head", head), *reversed(all_groups(encoder))]
        groups = [
            Group(name, (module,), self.lr / self.factor**depth, self.weight_decay)
            for depth, (name, module) in enumerate(top_down)
        ]
        thawing = [
            self._stage(f"down to {groups[depth].name}" if depth else "head", groups[: depth + 1])
            for depth in range(len(groups))
        ]
        return [*thawing[:-1], self._stage("all", groups, self.epochs)]

    def _stage(self, name: str, groups: list[Group], epochs: int | None = None) -> Stage:
        bottom_up = tuple(reversed(groups))
        schedule = SlantedTriangular(self.cut_frac, self.ratio)
        optimizer = AdamW(self.beta1, self.beta2)
        return Stage(name, bottom_up, epochs or self.thaw_epochs, schedule, optimizer, self.clip)
