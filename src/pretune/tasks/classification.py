"""Classification: one label, many labels or a number for a text or a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf, isfinite, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from pretune.data.golds import in_order
from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.metrics.classification import LabelScores, accuracy, by_label, macro_f1, micro_f1
from pretune.metrics.regression import mae, pearson, rmse, spearman
from pretune.tasks.balance import class_weights, in_order_of, positive_weights
from pretune.tasks.base import Answer, Scores, Task
from pretune.tasks.head_kinds import HeadKind, check_head, dropouts_of, reads_apart, said, widths_of
from pretune.tasks.pairs import rows_of_pairs, sides
from pretune.tasks.similarity import Orders, expected_level, rows_of_orders, shares_of_levels
from pretune.tasks.summary_head import ClassificationHead, SummaryNorm, by_owner

__all__ = ["Classification", "ClassificationHead", "Kind", "SummaryNorm", "by_owner", "in_order"]

Kind = Literal["one", "many", "number"]
_GOLDS: dict[Kind, str] = {"one": "one label", "many": "several labels", "number": "a number"}
METRICS: dict[Kind, str] = {"one": "accuracy", "many": "micro_f1", "number": "pearson"}


@dataclass(frozen=True)
class Classification(Task):
    """Which label, which labels, or what number?

    Golds are a label (`one`), a tuple of labels (`many`) or a float (`number`). `one` is chosen by accuracy,
    `many` by micro F1 at a threshold, `number` by Pearson's correlation. A pair (two parts) becomes
    one row or several, as the method's codec reads it; the summaries of a sample's rows are averaged.
    `pair="siamese"` has each text read alone, and the head compares the two. A pair whose order means nothing
    (is one a paraphrase of the other? how alike are they?) may be read both ways: `orders`.

        task = Classification.of(train, "one")
    """

    kind: Kind = "one"
    labels: tuple[str, ...] = ()
    """The labels in the order of the scores; none for numbers."""
    pair: Literal["joined", "siamese"] | None = None
    """How two texts are read: joined, one after the other; siamese: each alone, and the head sees both
    summaries u and v as [u; v; |u - v|; u * v] (Conneau et al. 2017, section 3.1). None: joined, but siamese
    by `esim`, and by `bcn` where all training samples are pairs; these two compare the texts themselves."""
    orders: Orders = "method"
    """Of joined pairs. both: each is read both ways, so that the answer is the same whichever text comes
    first; given: as it came; method: numbers as the method's paper has it, which for GPT is both, labels as
    they came."""
    of_rows: Literal["mean", "sum"] = "mean"
    """What stands for a sample of several rows: GPT adds those of both orders (section 3.3)."""
    head_kind: HeadKind = "linear"
    """`linear` as in GPT and BERT, or the two blocks with batch norm of ULMFiT (section 3.3); or a task model
    over the vectors of tokens, for the recipe features: `bcn` of a text or a pair (McCann et al. 2017,
    section 5), `esim` of a pair (Chen et al. 2017), to which ELMo was added."""
    hidden: int | tuple[int, ...] | None = None
    """Width between the two layers of `two_layer`, None: 50; several make as many more layers, none a single
    one. Of `bcn` and `esim` the units a direction of their BiLSTMs, None: 300."""
    dropout: float | tuple[float, ...] | None = None
    """Dropout before each layer but the first of `two_layer`, or of each; before the only one of `linear`;
    None: 0.1. Of `esim` one number, None: 0.5. Of `bcn` one or four, None: 0.25 on its first layer, 0.1 on
    the pooled vector, 0.2 and 0.3 on the two maxout layers."""
    summary_dropout: float = 0.4
    """Dropout before the first layer of `two_layer`."""
    maxout: int = 4
    """Linear functions of which an output of a maxout layer of `bcn` is the largest."""
    bilstm: bool = True
    """Whether `bcn` and `esim` begin with a BiLSTM of their own; false where `recipe.bilstm` has read
    already, so that ELMo's second mix may stand beside its states (`recipe.placement=both`)."""
    label_smoothing: float = 0.0
    """Share of the gold that is spread evenly over all labels; MultiFiT took 0.1."""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """Weight of each label in the loss, of its yes where there may be many; balanced: by its samples."""
    sampling: Literal["natural", "balanced"] = "natural"
    """balanced: an epoch has as many samples of each label, those of rare ones several times."""
    threshold: float = 0.5
    """Probability above which one of many labels is said."""
    y_range: tuple[float, float] | None = None
    """No number outside these is answered: a sigmoid between them."""
    levels: tuple[int, int] | None = None
    """Whole numbers from the first to the last, such as [0,5], become classes: the gold is shared out between
    the two around it, the answer is the mean by the probabilities (Tai et al. 2015); none: regression."""
    center: float = 0.0
    """Mean of the training numbers: the head learns standardised ones."""
    spread: float = 1.0
    """Standard deviation of the training numbers."""

    def __post_init__(self) -> None:
        check_head(self)
        self._check_kind()
        self._check_numbers()

    def _check_kind(self) -> None:
        """Options of another kind."""
        plain = {"label_smoothing": 0.0, "class_weights": None, "sampling": "natural", "threshold": 0.5}
        kinds: dict[str, tuple[Kind, ...]] = {
            "label_smoothing": ("one", "many"),
            "class_weights": ("one", "many"),
            "sampling": ("one",),
            "threshold": ("many",),
            "y_range": ("number",),
            "levels": ("number",),
        }
        for name, possible in kinds.items():
            if self.kind not in possible and getattr(self, name) != plain.get(name):
                what = " or ".join(_GOLDS[kind] for kind in possible)
                raise UsageError(f"task.{name} is for golds that are {what}; these are {_GOLDS[self.kind]}")

    def _check_numbers(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"task.label_smoothing is {self.label_smoothing}; it must be from 0 to below 1, such as 0.1"
            )
        if not 0 < self.threshold < 1:
            raise UsageError(f"task.threshold is {self.threshold}; it must be between 0 and 1")
        if self.y_range is not None and not (
            isfinite(sum(self.y_range)) and self.y_range[0] < self.y_range[1]
        ):
            raise UsageError(
                f"task.y_range is {said(self.y_range)}; give the lowest number, then the highest"
            )
        if self.levels is not None and self.y_range is not None:
            raise UsageError("task.levels answer between the first and the last; leave task.y_range out")
        if self.levels is not None and not self.levels[0] < self.levels[1]:
            raise UsageError(f"task.levels is {said(self.levels)}; give the lowest, then the highest")
        if self.class_weights == "balanced" == self.sampling:
            raise UsageError(
                "task.class_weights and task.sampling are both balanced, which counts rare labels twice; "
                "leave one out"
            )
        for label, weight in self.class_weights.items() if isinstance(self.class_weights, dict) else ():
            if self.labels and label not in self.labels:
                raise choose("a label of task.class_weights", label, self.labels)
            if not 0 < weight < inf:
                raise UsageError(f"task.class_weights has {weight} for {label!r}; it must be above 0")

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

    def fitted_to(self, samples: Sequence[Sample]) -> Classification:
        """With what training samples decide: balanced weights, and whether a BCN reads pairs. Their numbers
        must be in range."""
        for name, ends in (("y_range", self.y_range), ("levels", self.levels)):
            for sample in samples if ends is not None else ():
                if ends is not None and not ends[0] <= sample.gold <= ends[1]:
                    raise UserError(
                        f"sample {sample.key!r} has the number {sample.gold:g}, outside task.{name} "
                        f"{said(ends)}"
                    )
        pairs = all(len(sample.parts) == 2 for sample in samples)
        if self.head_kind == "bcn" and self.pair is None and pairs and self.orders != "both":
            return replace(self, pair="siamese").fitted_to(samples)
        if self.class_weights != "balanced":
            return self
        weigh = class_weights if self.kind == "one" else positive_weights
        return replace(self, class_weights=weigh(self.labels, [sample.gold for sample in samples]))

    def classes(self, samples: Sequence[Sample]) -> list[str] | None:
        return [sample.gold for sample in samples] if self.sampling == "balanced" else None

    def widths(self) -> tuple[int, ...]:
        """Between the layers of `two_layer`; of `bcn` and `esim` the units of a BiLSTM."""
        return widths_of(self.head_kind, self.hidden)

    def dropouts(self) -> tuple[float, ...]:
        """Of each place that has one, but `summary_dropout`."""
        return dropouts_of(self.head_kind, self.dropout, len(self.widths()))

    @property
    def apart(self) -> bool:
        """Whether the texts of a pair are read each alone."""
        return self.pair == "siamese" or (self.pair is None and self.head_kind == "esim")

    def weight_of_labels(self) -> Tensor | None:  # (C,)
        """None while they are not known."""
        if not isinstance(self.class_weights, dict):
            return None
        return torch.tensor(in_order_of(self.labels, self.class_weights))

    def standardised(self, value: float) -> float:
        return (value - self.center) / self.spread

    def values(self, logits: Tensor) -> Tensor:  # (B, C) -> (B,)
        """The numbers that logits stand for."""
        if self.levels is not None:
            return expected_level(logits, self.levels)
        return logits[:, 0] * self.spread + self.center

    @property
    def outputs(self) -> int:
        """C, the width of the logits."""
        return self.levels[1] - self.levels[0] + 1 if self.levels is not None else len(self.labels) or 1

    @property
    def metric(self) -> str:
        return METRICS[self.kind]

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        if self.apart:
            return rows_of_pairs(codec, samples, reads_apart(self))
        if self.orders == "both" or (self.orders == "method" and self.kind == "number"):
            return rows_of_orders(codec, samples, self.orders == "both")
        return codec.encode([sample.parts for sample in samples])

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        return {"side": sides(rows)} if self.apart else {}  # (N,)

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`label` (B,), `labels` (B, C) of 0 and 1, `value` (B,) standardised, `shares` (B, C) of levels."""
        if self.levels is not None:
            return {"shares": shares_of_levels([float(sample.gold) for sample in samples], self.levels)}
        if self.kind == "number":
            values = [self.standardised(float(sample.gold)) for sample in samples]
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
        return ClassificationHead(self, encoder.summary_width, encoder.width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        logits = scores["logits"].detach().to("cpu", torch.float64)  # (B, C)
        if self.kind == "number":
            low, high = self.y_range or (-inf, inf)  # a rounding error is not outside either
            return [Answer(value=min(high, max(low, value))) for value in self.values(logits).tolist()]
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
        return Answer(
            labels=tuple(label for label in self.labels if scores[label] > self.threshold), scores=scores
        )

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

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        if self.kind == "number":
            return {}
        said = [answer.label if self.kind == "one" else answer.labels for answer in answers]
        return by_label(golds, said, self.labels)
