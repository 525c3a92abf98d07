"""From the summary of a text to logits and their loss: the head of classification."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded
from pretune.errors import UserError
from pretune.tasks.base import Head, Scores
from pretune.tasks.bcn import BCN
from pretune.tasks.esim import ESIM
from pretune.tasks.pairs import compared
from pretune.tensors.batch import Batch

if TYPE_CHECKING:
    from pretune.tasks.classification import Classification


class ClassificationHead(Head):
    """Summary -> logits (B, C); C is 1 for numbers, or how many levels they have.

    The task models BCN and ESIM, where chosen, read the tokens' vectors instead.
    """

    def __init__(self, task: Classification, summary_width: int, width: int) -> None:
        super().__init__()
        self.kind, self.smoothing = task.kind, task.label_smoothing
        names = {"one": "label", "many": "labels", "number": "value" if task.levels is None else "shares"}
        self.gold = names[task.kind]
        self.balanced = task.class_weights == "balanced"
        self.compares, self.adds = task.apart, task.of_rows == "sum"
        summary_width *= 4 if self.compares else 1
        outputs = task.outputs  # C
        layers: list[nn.Module]
        self.reader = _reader(task, width)
        if self.reader is not None:
            layers = self.reader.layers(outputs)
        elif task.head_kind == "linear":
            layers = [nn.Dropout(task.dropouts()[0]), nn.Linear(summary_width, outputs)]
        else:
            layers = _blocks(
                (summary_width, *task.widths(), outputs), (task.summary_dropout, *task.dropouts())
            )
        if task.y_range is not None:
            layers.append(SigmoidRange(*(task.standardised(x) for x in task.y_range)))
        self.layers = nn.Sequential(*layers)
        self.weights: Tensor | None  # (C,), said by the task and so no part of what is saved
        self.register_buffer("weights", task.weight_of_labels(), persistent=False)

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        if self.reader is not None:
            read = self.reader(encoded.layers[-1], batch)  # (N, ·) or, of pairs, (B, ·)
            summary = read if self.compares else by_owner(read, batch, self.adds)
        elif self.compares:
            summary = compared(encoded.summary, batch)  # (B, 4S)
        else:
            summary = by_owner(encoded.summary, batch, self.adds)  # (B, S)
        return {"logits": self.layers(summary).float()}  # (B, C)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """The sum of -log p(label), smoothed, times the label's weight; of C decisions each; of squares; or
        of -sum p log q, the levels' shares against the softmax.

        Smoothing by e takes (1 - e) of the gold and e / C of every label, e / 2 of yes and no.
        """
        if self.balanced:
            raise UserError(
                "class_weights are balanced, but by which samples? give the task those: fitted_to"
            )
        logits, e = scores["logits"], self.smoothing  # (B, C)
        if self.kind == "one":
            label = batch.gold["label"]  # (B,)
            losses = F.cross_entropy(logits, label, reduction="none", label_smoothing=e)  # (B,)
            return losses.sum() if self.weights is None else (losses * self.weights[label]).sum()
        if self.kind == "many":
            wanted = batch.gold["labels"] * (1 - e) + e / 2  # (B, C)
            return F.binary_cross_entropy_with_logits(
                logits, wanted, reduction="sum", pos_weight=self.weights
            )
        if self.gold == "shares":
            return F.cross_entropy(logits, batch.gold["shares"], reduction="sum")
        return F.mse_loss(logits[:, 0], batch.gold["value"], reduction="sum")

    def targets(self, batch: Batch) -> int:
        """B; for many labels each of the B·C decisions."""
        gold = batch.gold[self.gold]
        return gold.numel() if self.kind == "many" else len(gold)


def _reader(task: Classification, width: int) -> BCN | ESIM | None:
    """The task model between vectors of `width` and the output, if one is asked for."""
    if task.head_kind == "bcn":
        return BCN(width, task.widths()[0], task.dropouts(), task.maxout, task.apart, task.bilstm)
    if task.head_kind == "esim":
        return ESIM(width, task.widths()[0], task.dropouts()[0], task.bilstm)
    return None


def _blocks(widths: tuple[int, ...], dropouts: tuple[float, ...]) -> list[nn.Module]:
    """Norm, dropout, linear, in that order of the release, with ReLU between blocks."""
    layers: list[nn.Module] = []
    for (width_in, width), p in zip(pairwise(widths), dropouts, strict=True):
        layers += [SummaryNorm(width_in), nn.Dropout(p), nn.Linear(width_in, width), nn.ReLU()]
    return layers[:-1]


class SigmoidRange(nn.Module):
    """low + (high - low) · sigmoid(x): nothing outside (low, high), as fastai's `y_range`."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * x.float().sigmoid()


class SummaryNorm(nn.BatchNorm1d):
    """Batch norm for small data: two departures from torch.

    The running statistics start as the plain mean of the first batches: with a hundred labels their
    untrained 0 and 1 would still be felt at the end. A training batch of one sample, which has no
    variance, is normed by the running statistics instead of failing.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        from_batch = self.training and len(input) > 1
        share = 0.0
        if from_batch:
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            share = max(self.momentum, 1 / int(self.num_batches_tracked))
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, from_batch, share, self.eps
        )


def by_owner(summary: Tensor, batch: Batch, add: bool = False) -> Tensor:
    """The mean summary of each sample's rows, or their sum: (N, S) -> (B, S)."""
    samples = batch.samples
    if samples == len(summary):
        return summary
    totals = summary.new_zeros(samples, summary.shape[1]).index_add(0, batch.owner, summary)  # (B, S)
    if add:
        return totals
    counts = torch.bincount(batch.owner, minlength=samples)  # (B,)
    return totals / counts[:, None]
