"""The contract of a recipe: which weights move, when, and how fast."""

from __future__ import annotations

from typing import Protocol

from pretune.encoder import Encoder
from pretune.tasks.base import Head, Task
from pretune.training.stage import Stage


def auxiliary(recipe: Recipe) -> bool:
    """Whether texts themselves are predicted beside the task; few recipes have the setting."""
    return getattr(recipe, "auxiliary", 0.0) > 0


class Recipe(Protocol):
    """Concrete recipes are frozen dataclasses: rates and order, with the paper's defaults."""

    @property
    def batch_size(self) -> int:
        """Samples a step."""
        ...

    @property
    def alpha(self) -> float:
        """Weight of activation regularisation (AR) on the top layer."""
        ...

    @property
    def beta(self) -> float:
        """Weight of its temporal sister (TAR)."""
        ...

    def task(self, task: Task) -> Task:
        """The task as it is trained: itself, or joined with an auxiliary objective."""
        ...

    def wrap(self, encoder: Encoder) -> Encoder:
        """The encoder as the head sees it: itself, or frozen under a scalar mix."""
        ...

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        """Legs of training, in order. `encoder` is what `wrap` returned."""
        ...
