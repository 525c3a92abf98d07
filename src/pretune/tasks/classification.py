"""Classification: one label, many labels or a number for a text or a pair."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError
from pretune.metrics.classification import accuracy, macro_f1, micro_f1
from pretune.metrics.regression import mae, pearson, rmse, spearman
from pretune.tasks.base import Answer, Head, Scores, Task
from pretune.tensors.batch import Batch

Kind = Literal["one", "many", "number"]
METRICS: dict[Kind, str] = {"one": "accuracy", "many": "micro_f1", "number": "pearson"}


@dataclass(frozen=True)
class Classification(Task):
    """Which label, which labels, or what number?

    Golds are a label (`one`), a tuple of labels (`many`) or a float (`number`). `one` is chosen by accuracy,
    `many` by micro F1 at a threshold of 0.5, `number` by Pearson's correlation. A pair (two parts) becomes
    one row or several, as the method's codec reads it; the summaries of a sample's rows are averaged.

        task = Classification.of(train, "one")
    """

    kind: Kind = "one"
    labels: tuple[str, ...] = ()
    """The labels in the order of the scores; none for numbers."""
    head_kind: Literal["linear", "two_layer"] = "linear"
    """`linear` as in GPT and BERT, or the two blocks with batch norm of ULMFiT (section 3.3)."""
    hidden: int = 50
    """Width between the two layers of `two_layer`."""
    dropout: float = 0.1
    """Dropout before the last layer."""
    summary_dropout: float = 0.4
    """Dropout before the first layer of `two_layer`."""
    center: float = 0.0
    """Mean of the training numbers: the head learns standardised ones."""
    spread: float = 1.0
    """Standard deviation of the training numbers."""

    def __post_init__(self) -> None:
        for name in ("dropout", "summary_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"task.{name} is {getattr(self, name)}; it must be from 0 to below 1")
        if self.hidden < 1:
            raise UsageError(f"task.hidden is {self.hidden}; it must be at least 1")

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: Kind = "one", **options: Any) -> Classification:
        """The task that these training samples ask: their labels in order, or the scale of their numbers."""
        golds = [sample.gold for sample in samples if sample.gold is not None]
        if not golds:
            raise UserError("no sample has a label, so there is nothing to train on")
        if kind == "number":
            center = fsum(golds) / len(golds)
            spread = sqrt(fsum((x - center) ** 2 for x in golds) / len(golds))
            return cls(kind, center=center, spread=spread or 1.0, **options)
        labels = in_order({x for gold in golds for x in ((gold,) if kind == "one" else gold)})
        if len(labels) < (2 if kind == "one" else 1):
            raise UserError(f"all training samples have the label {labels}; a classifier needs at least two")
        return cls(kind, labels, **options)

    @property
    def metric(self) -> str:
        return METRICS[self.kind]

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        return codec.encode([sample.parts for sample in samples])

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`label` (B,), `labels` (B, C) of 0 and 1, or `value` (B,) standardised."""
        if self.kind == "number":
            values = [(float(sample.gold) - self.center) / self.spread for sample in samples]
            return {"value": torch.tensor(values)}  # (B,)
        place = {label: i for i, label in enumerate(self.labels)}
        if self.kind == "one":
            return {"label": torch.tensor([self._place(place, sample, sample.gold) for sample in samples])}
        labels = torch.zeros(len(samples), len(self.labels))  # (B, C)
        for b, sample in enumerate(samples):
            labels[b, [self._place(place, sample, label) for label in sample.gold]] = 1
        return {"labels": labels}

    def _place(self, place: Mapping[str, int], sample: Sample, label: str) -> int:
        if label not in place:
            raise UserError(
                f"sample {sample.key!r} has the label {label!r}, which the task does not know; "
                f"it knows {', '.join(self.labels[:20])}"
            )
        return place[label]

    def head(self, encoder: Encoder) -> ClassificationHead:
        return ClassificationHead(self, encoder.summary_width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        logits = scores["logits"].detach().to("cpu", torch.float64)  # (B, C)
        if self.kind == "number":
            return [Answer(value=value * self.spread + self.center) for value in logits[:, 0].tolist()]
        shares = logits.softmax(-1) if self.kind == "one" else logits.sigmoid()  # (B, C)
        return [self._answer(row) for row in shares.tolist()]

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: probabilities or values averaged."""
        if self.kind == "number":
            values = [
                [answer.value or 0.0 for answer in of_sample] for of_sample in zip(*answers, strict=True)
            ]
            return [Answer(value=fsum(row) / len(row)) for row in values]
        return [
            self._answer([fsum(a.scores[label] for a in of_sample) / len(of_sample) for label in self.labels])
            for of_sample in zip(*answers, strict=True)
        ]

    def _answer(self, shares: Sequence[float]) -> Answer:
        scores = dict(zip(self.labels, shares, strict=True))
        if self.kind == "one":
            return Answer(label=max(self.labels, key=scores.__getitem__), scores=scores)
        return Answer(labels=tuple(label for label in self.labels if scores[label] > 0.5), scores=scores)

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Labels that training never saw count as errors."""
        if self.kind == "number":
            values = [answer.value for answer in answers]
            figures = {"pearson": pearson, "spearman": spearman, "mae": mae, "rmse": rmse}
            return {name: figure(golds, values) for name, figure in figures.items()}  # type: ignore[arg-type]
        if self.kind == "one":
            said = [answer.label for answer in answers]
            return {"accuracy": accuracy(golds, said), "macro_f1": macro_f1(golds, said)}
        several = [answer.labels for answer in answers]
        return {"micro_f1": micro_f1(golds, several), "macro_f1": macro_f1(golds, several)}


class ClassificationHead(Head):
    """Summary -> logits (B, C); C is 1 for numbers."""

    def __init__(self, task: Classification, summary_width: int) -> None:
        super().__init__()
        self.kind = task.kind
        outputs = len(task.labels) or 1  # C
        self.layers = nn.Sequential(nn.Dropout(task.dropout), nn.Linear(summary_width, outputs))
        if task.head_kind == "two_layer":  # norm, dropout, linear, twice: the order of the release
            self.layers = nn.Sequential(
                SummaryNorm(summary_width),
                nn.Dropout(task.summary_dropout),
                nn.Linear(summary_width, task.hidden),
                nn.ReLU(),
                SummaryNorm(task.hidden),
                nn.Dropout(task.dropout),
                nn.Linear(task.hidden, outputs),
            )

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        return {"logits": self.layers(by_owner(encoded.summary, batch)).float()}  # (B, C)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        logits = scores["logits"]  # (B, C)
        if self.kind == "one":
            return F.cross_entropy(logits, batch.gold["label"], reduction="sum")
        if self.kind == "many":
            return F.binary_cross_entropy_with_logits(logits, batch.gold["labels"], reduction="sum")
        return F.mse_loss(logits[:, 0], batch.gold["value"], reduction="sum")

    def targets(self, batch: Batch) -> int:
        """B; for many labels each of the B·C decisions."""
        names: dict[Kind, str] = {"one": "label", "many": "labels", "number": "value"}
        return batch.gold[names[self.kind]].numel()


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


def by_owner(summary: Tensor, batch: Batch) -> Tensor:
    """The mean summary of each sample's rows: (N, S) -> (B, S).

    GPT adds the two readings of a pair (section 3.3); the linear layer absorbs the half.
    """
    samples = batch.samples
    if samples == len(summary):
        return summary
    totals = summary.new_zeros(samples, summary.shape[1]).index_add(0, batch.owner, summary)  # (B, S)
    counts = torch.bincount(batch.owner, minlength=samples)  # (B,)
    return totals / counts[:, None]


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Numbers by value, other labels by alphabet with the numbers in them by value: "2" before "10"."""

    def place(label: str) -> tuple[Any, ...]:
        try:
            value = float(label)
        except ValueError:
            value = float("nan")
        if isfinite(value):
            return (0, value, label)
        pieces = re.split(r"([0-9]+)", label)  # text at even places, digits at odd
        return (1, [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], label)

    return tuple(sorted(labels, key=place))
