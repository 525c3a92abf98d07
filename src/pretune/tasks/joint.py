"""Two tasks on one encoding: the labels, and the next token of the same texts (GPT's auxiliary objective)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.layers.adaptive_softmax import AdaptiveSoftmax
from pretune.tasks.around import Around
from pretune.tasks.base import Head, Scores
from pretune.tasks.next_token import Tied, adaptive_of
from pretune.tensors.batch import Batch

LOGITS_HELD = 60_000_000  # at once: 240 MB in float32


@dataclass(frozen=True)
class Joint(Around):
    """L3 = L2 + weight * L1, eq. 5 of Radford et al. (2018): learn `task`, and go on predicting the text.

    Answers and scores are those of `task`; the next tokens are the batch's own ids. Needs a language model
    that reads one way and ties its output to its embedding: AWD-LSTM, GPT.
    """

    weight: float = 0.5
    """lambda, section 4.1."""

    def head(self, encoder: Encoder) -> JointHead:
        return JointHead(self.task.head(encoder), encoder, self.weight)


class JointHead(Head):
    """The task's head beside a decoder tied to the encoder, which has no weights of its own.

    The auxiliary loss is averaged over a row's tokens, then over a sample's rows, as the release does. It
    counts once for each of the sample's targets, so that dividing by all targets leaves L2 + weight * L1
    whatever the batches.
    """

    def __init__(self, main: Head, encoder: Encoder, weight: float) -> None:
        super().__init__()
        if getattr(encoder, "embedding_weight", None) is None:
            raise UsageError(
                "an auxiliary objective needs a language model that predicts the next token, which "
                f"{type(encoder).__name__} is not; set recipe.auxiliary=0"
            )
        self.main = main
        self.weight = weight
        self._tied = (encoder,)  # in a tuple, so that the weights stay the encoder's alone

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """The task's scores, and `top` (N, T, D), from which the loss reads the next tokens."""
        return {**self.main(encoded, batch), "top": encoded.layers[-1]}

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        auxiliary = self._next_tokens(scores["top"], batch) * self.targets(batch) / batch.samples
        return self.main.loss(scores, batch) + self.weight * auxiliary

    def targets(self, batch: Batch) -> int:
        return self.main.targets(batch)

    def seen(self, scores: Scores, encoded: Encoded) -> Tensor:
        return self.main.seen(scores, encoded)

    def _next_tokens(self, top: Tensor, batch: Batch) -> Tensor:
        """A sum over samples; a sample is the mean of its rows, a row of its tokens, 0 if it has but one."""
        encoder = cast(Tied, self._tied[0])
        real = batch.mask[:, 1:]  # (N, T-1) where there is a next token
        rows_of_sample = torch.bincount(batch.owner, minlength=batch.samples)[batch.owner]  # (N,)
        shares = 1 / (real.sum(1).clamp(min=1) * rows_of_sample)  # (N,)
        hidden, following = top[:, :-1][real], batch.ids[:, 1:][real]  # (M, D), (M,)
        weights = shares[:, None].expand(real.shape)[real]  # (M,)
        total = top.new_zeros((), dtype=torch.float32)
        step = max(32, LOGITS_HELD // len(encoder.embedding_weight))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            total = total + checkpoint(  # so that no logits are kept
                _weighted_loss,
                hidden[part],
                encoder.embedding_weight,
                encoder.decoder_bias,
                following[part],
                weights[part],
                adaptive_of(encoder),
                use_reentrant=False,
            )
        return total


def _weighted_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    following: Tensor,
    by: Tensor,
    adaptive: AdaptiveSoftmax | None,
) -> Tensor:
    if adaptive is not None:
        return -(adaptive.log_probabilities(hidden, weight, bias, following) * by).sum()
    losses = F.cross_entropy(F.linear(hidden, weight, bias).float(), following, reduction="none")  # (M,)
    return (losses * by).sum()
