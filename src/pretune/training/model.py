"""Model: an encoder and a head as one module, from a batch to its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from pretune.encoder import Encoded, Encoder
from pretune.layers.regularisation import activation_penalty
from pretune.tasks.base import Head, Scores
from pretune.tensors.batch import Batch


@dataclass
class Output:
    scores: Scores
    loss: Tensor | None  # summed over targets, penalties included, float32; None without gold
    reported: Tensor | None  # the same without penalties, detached: what logs show
    carry: Any = None
    parts: dict[str, Tensor] = field(default_factory=dict)  # of `reported`, where it is made of several


class Model(nn.Module):
    """`alpha` and `beta` weigh AR and TAR on the top layer (Merity et al. 2017, section 4.6)."""

    def __init__(self, encoder: Encoder, head: Head, alpha: float = 0.0, beta: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.alpha, self.beta = alpha, beta

    def forward(self, batch: Batch, carry: Any = None) -> Output:
        encoded = self.encoder(batch, carry)
        scores = self.head(encoded, batch)
        if not batch.gold:
            return Output(scores, None, None, encoded.carry)
        loss, parts = self.head.loss_and_parts(scores, batch)
        loss = loss.float()
        reported = loss.detach()
        if self.training:
            for penalty in self._penalties(scores, encoded):
                loss = loss + penalty * self.head.targets(batch)
        said = {name: part.detach().float() for name, part in parts.items()}
        return Output(scores, loss, reported, encoded.carry, said)

    def _penalties(self, scores: Scores, encoded: Encoded) -> Iterator[Tensor]:
        if self.alpha or self.beta:
            seen, top = self.head.seen(scores, encoded), encoded.layers[-1]
            yield activation_penalty(seen, top, encoded.mask, self.alpha, self.beta)
        own = self.encoder.penalty()
        if own is not None:
            yield own
