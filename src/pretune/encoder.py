"""The contract between reading and answering: Encoder and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from pretune.errors import UsageError
from pretune.tensors.batch import Batch

Purpose = Literal["language_model", "task"]


@dataclass
class Encoded:
    """What an encoder says about a batch of N rows."""

    layers: tuple[Tensor, ...]  # bottom to top, each (N, T, D_l), zero at padding
    mask: Tensor  # (N, T)
    summary: Tensor  # (N, S) the method's own sentence vector
    carry: Any = None  # recurrent state, a value: passed in, returned, never kept on the module


class Encoder(nn.Module, ABC):
    """ids -> vectors. A row's output depends on that row (and its carry) alone."""

    width: int  # D of the top layer
    summary_width: int  # S

    @abstractmethod
    def forward(self, batch: Batch, carry: Any = None) -> Encoded: ...

    @abstractmethod
    def groups(self) -> list[nn.Module]:
        """Bottom to top, every parameter in exactly one: what recipes freeze, thaw and rate."""

    def layer_widths(self) -> tuple[int, ...]:
        """D_l of each layer of `Encoded.layers`, bottom to top."""
        return (self.width,)

    def for_task(self) -> Encoder:
        """A copy to learn a task with, without what only pretraining needs."""
        return deepcopy(self)

    def fresh(self) -> Encoder:
        """Another of the same shape, its weights drawn as before any pretraining, by the global generator."""
        raise UsageError(
            f"the weights of {type(self).__name__} cannot be drawn anew; leave recipe.reinitialize_top and "
            "recipe.n_transfer out"
        )

    def purpose(self, purpose: Purpose) -> None:
        """Regularise for this purpose from now on; encoders whose paper names no difference ignore it."""
        return

    def vectors(self, batch: Batch) -> Tensor:
        """Each token's vector before any other token is looked at, (N, T, D): where explanations begin."""
        raise UsageError(f"{type(self).__name__} cannot be read from vectors; explain it by occlusion")

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        """What `forward` says of a task's batch, with these vectors in place of the batch's own.

        The gradient reaches every vector, also where `forward` would cut it.
        """
        raise UsageError(f"{type(self).__name__} cannot be read from vectors; explain it by occlusion")

    def penalty(self) -> Tensor | None:
        """What the loss of each target grows by in training beside its own, such as lambda on a mix."""
        return None
