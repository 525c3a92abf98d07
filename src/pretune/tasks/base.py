"""The contract of a task: rows and gold in, head and loss, answers and scores out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample, Span
from pretune.encoder import Encoded, Encoder
from pretune.metrics.classification import LabelScores
from pretune.tensors.batch import Batch

Scores = dict[str, Tensor]
Golds = Literal["labels", "tags", "choices", "answers", "roles", "clusters"]


@dataclass(frozen=True)
class Answer:
    """What a model says of one sample; the fields that a task does not use stay empty."""

    label: str | None = None
    labels: tuple[str, ...] | None = None
    value: float | None = None
    spans: tuple[tuple[Span, str], ...] | None = None
    clusters: tuple[tuple[Span, ...], ...] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    words: tuple[tuple[Span, Sequence[float]], ...] | None = None  # each, and how likely each label is there
    choice: int | None = None  # which of the sample's choices, counted from 0
    text: str | None = None  # what answers, as the passage has it; "" where nothing does
    guesses: tuple[tuple[Span, str, float], ...] | None = None  # characters, text, probability; best first

    @property
    def said(self) -> Any:
        """What a gold of the same kind is compared with: choice, label, labels, number, text or clusters."""
        possible = (self.choice, self.label, self.labels, self.value, self.text, self.clusters)
        return next((x for x in possible if x is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """The fields in use, ready for JSON; of words their characters alone."""
        said = {name: getattr(self, name) for name in ("choice", "label", "labels", "value", "clusters")}
        if self.words is not None:
            said["words"] = [[*span] for span, _ in self.words]
        if self.text is not None:
            said["answer"] = self.text
        if self.guesses is not None:
            said["guesses"] = [
                {"text": text, "start": span.start, "end": span.end, "probability": share}
                for span, text, share in self.guesses
            ]
        if self.spans is not None:
            said["spans"] = [{"start": x.start, "end": x.end, "label": label} for x, label in self.spans]
        return {name: x for name, x in said.items() if x is not None} | {"scores": self.scores}


class Head(nn.Module, ABC):
    """Encoded -> scores -> loss."""

    @abstractmethod
    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """Scores of each sample or token; must never look at `batch.gold`."""

    @abstractmethod
    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """The loss *summed* over this batch's targets: a scalar."""

    def loss_and_parts(self, scores: Scores, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss`, and what logs show beside it where it is made of several: each summed as it is."""
        return self.loss(scores, batch), {}

    def targets(self, batch: Batch) -> int:
        """How many targets the sum runs over, so that N batches of B weigh as one of N·B: B, one a sample."""
        return batch.samples

    def seen(self, scores: Scores, encoded: Encoded) -> Tensor:
        """The top layer (N, T, D) as this head used it, its own dropout included: what AR penalises."""
        return encoded.layers[-1]


@runtime_checkable
class Tallied(Protocol):
    """A task whose scores are made of what samples add up to."""

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Any:
        """An array, one row of whole numbers a sample."""
        ...

    def scores_of(self, total: Any) -> dict[str, float]:
        """Scores of those rows added up."""
        ...


@runtime_checkable
class Tuned(Protocol):
    """A task that takes a setting from what a trained model answers to the validation samples."""

    def tuned(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Task: ...


class Task(ABC):
    """A question asked of every sample. Concrete tasks are frozen dataclasses: labels and options."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """The name, in `score`'s answer, of the figure that models are chosen by."""

    higher_is_better: bool = True
    tokens_at_once: int | None = None  # most of what is read together, padding included; None: any number
    golds: ClassVar[Golds] = "labels"  # what a labelled file says: of a text, of its words, of its choices

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: Any = None, **options: Any) -> Task:
        """The task that these training samples ask; a field `labels` has their golds in order."""
        if "labels" in getattr(cls, "__dataclass_fields__", {}):
            golds = {sample.gold for sample in samples if sample.gold is not None}
            options = {"labels": tuple(sorted(golds)), **options}
        return cls(**options)

    def fitted_to(self, samples: Sequence[Sample]) -> Task:
        """The task with what it takes from the training samples beside their golds, such as weights."""
        return self

    def classes(self, samples: Sequence[Sample]) -> list[str] | None:
        """The class of each training sample where an epoch has as many of each; None: every sample once."""
        return None

    @abstractmethod
    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """Each sample's input sequences; never empty."""

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """What the head may look at beside the encoded rows."""
        return {}

    @abstractmethod
    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """What the loss compares with."""

    @abstractmethod
    def head(self, encoder: Encoder) -> Head: ...

    @abstractmethod
    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]: ...

    def pieces(self, rows: Sequence[Row]) -> list[list[Row]]:
        """A sample's rows, a few at a time where `together` makes their scores those of the sample."""
        return [list(rows)]

    def together(self, scores: Sequence[Scores], pieces: Sequence[Sequence[Row]]) -> Scores:
        """The scores of a sample from those of its `pieces`."""
        (whole,) = scores
        return whole

    @abstractmethod
    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]: ...

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        """How well each label is found; nothing where there are none."""
        return {}
