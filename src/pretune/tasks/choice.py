"""Multiple choice: which of a question's choices is right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.metrics.classification import accuracy
from pretune.tasks.base import Answer, Golds, Head, Scores, Task
from pretune.tasks.contexts import Asked, Cut, encode_whole
from pretune.tensors.batch import Batch


@dataclass(frozen=True)
class MultipleChoice(Task):
    """Which choice follows from the question? Samples may have different numbers of them.

    A sample's parts are the question, with its context before it, and each choice; golds count choices from
    0. Every choice is read in a row of its own, as the second text of a pair whose first is the question; a
    linear layer gives it one number, and the softmax is over the choices of a sample (section 3.3 of Radford
    et al. 2018; section 4.4 of Devlin et al. 2019). The score is accuracy.

        task = MultipleChoice.of(train)

    An answer's `choice` is the number of one, its `scores` have the probability of "0", "1", … Files are
    read by `pretune.data.choices.read_choices`, and `choice_sample` there makes a sample.
    """

    golds: ClassVar[Golds] = "choices"

    dropout: float = 0.1
    """Before the linear layer; all choices of a sample lose the same features, as in GPT's release."""
    cut: Cut = "end"
    """Which end of a context gives way where the codec cannot read all of it: the question, which follows the
    context, and the choice stay whole. codec: what the codec cuts of a long text, the question included."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UsageError(f"task.dropout is {self.dropout}; it must be from 0 to below 1")
        if self.cut not in get_args(Cut):
            raise choose("task.cut", self.cut, get_args(Cut))

    @classmethod
    def of(
        cls, samples: Sequence[Sample], kind: Literal["choice"] = "choice", **options: Any
    ) -> MultipleChoice:
        """The task that these training samples ask."""
        if kind != "choice":
            raise UsageError(f"--kind is {kind}, which is for classification; here a choice is asked for")
        if all(sample.gold is None for sample in samples):
            raise UserError("no sample has an answer, so there is nothing to train on")
        for sample in samples:
            _checked(sample)
        return cls(**options)

    @property
    def metric(self) -> str:
        return "accuracy"

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """The rows of the first choice, of the second, …"""
        asked = [one for sample in samples for one in _asked(sample)]
        read = iter(encode_whole(codec, asked, self.cut))
        return [
            [_of_choice(row, number) for number in range(1, len(sample.parts)) for row in next(read)]
            for sample in samples
        ]

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`choice` (N,): of which of the batch's M choices each row is; `asked` (M,): whose it is."""
        choice: list[int] = []
        asked: list[int] = []
        for b, (sample, of_sample) in enumerate(zip(samples, rows, strict=True)):
            choice += [len(asked) + number for number in _numbers(sample, of_sample)]
            asked += [b] * (len(sample.parts) - 1)
        return {"choice": torch.tensor(choice), "asked": torch.tensor(asked)}

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`choice` (B,), counted from 0 in each sample."""
        return {"choice": torch.tensor([_checked(sample).gold for sample in samples])}

    def head(self, encoder: Encoder) -> ChoiceHead:
        return ChoiceHead(encoder.summary_width, self.dropout)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        shares = scores["logits"].detach().to("cpu", torch.float64).softmax(-1).tolist()  # B × (K,)
        return [answer_of(x[: len(sample.parts) - 1]) for sample, x in zip(samples, shares, strict=True)]

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: each choice's probabilities averaged."""
        return [
            answer_of(
                [fsum(a.scores[name] for a in of_sample) / len(of_sample) for name in of_sample[0].scores]
            )
            for of_sample in zip(*answers, strict=True)
        ]

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        return {"accuracy": accuracy(golds, [answer.choice for answer in answers])}


class ChoiceHead(Head):
    """Summaries -> logits (B, K), minus infinity where a sample has fewer choices than another.

    The mean of a choice's rows stands for it.
    """

    def __init__(self, summary_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(summary_width, 1)

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        choice, asked = batch.given["choice"], batch.given["asked"]  # (N,), (M,)
        summary, choices = encoded.summary, len(asked)
        if choices != len(choice):
            totals = summary.new_zeros(choices, summary.shape[1]).index_add(0, choice, summary)
            summary = totals / torch.bincount(choice, minlength=choices)[:, None]  # (M, S)
        shared = self.dropout(summary.new_ones(batch.samples, summary.shape[1]))  # (B, S)
        scores = self.linear(summary * shared[asked])[:, 0].float()  # (M,)
        counts = torch.bincount(asked, minlength=batch.samples)  # (B,)
        place = torch.arange(choices, device=asked.device) - (counts.cumsum(0) - counts)[asked]  # (M,)
        logits = scores.new_full((batch.samples, int(counts.max())), -inf)  # (B, K)
        return {"logits": logits.index_put((asked, place), scores)}

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        return F.cross_entropy(scores["logits"], batch.gold["choice"], reduction="sum")

    def targets(self, batch: Batch) -> int:
        return len(batch.gold["choice"])


def answer_of(shares: Sequence[float]) -> Answer:
    """The likeliest choice; of equals the first."""
    best = max(range(len(shares)), key=shares.__getitem__)
    return Answer(choice=best, scores={str(number): x for number, x in enumerate(shares)})


def _asked(sample: Sample) -> list[Asked]:
    if len(sample.parts) < 3:
        raise UserError(
            f"sample {sample.key!r} has {max(0, len(sample.parts) - 1)} choices; a question and at least two "
            "choices are needed"
        )
    question, *choices = sample.parts
    start = sample.marks[0].start if sample.marks else 0
    return [Asked(question, choice, start) for choice in choices]


def _of_choice(row: Row, number: int) -> Row:
    """A row of a question and one choice, with that choice's number among the sample's parts."""
    part = [number if part == 1 else part for part in row.part]
    return Row(row.ids, row.segments, part, row.chars, row.spelled)


def _numbers(sample: Sample, rows: Sequence[Row]) -> list[int]:
    """Which choice each row is of, counted from 0."""
    choices = len(sample.parts) - 1
    if len(rows) == choices:
        return list(range(choices))
    found = [max((part - 1 for part in row.part if part > 0), default=0) for row in rows]
    if missing := sorted(set(range(choices)) - set(found)):
        raise UserError(
            f"sample {sample.key!r}: nothing of choice {missing[0]} is read; give a choice with some words"
        )
    return found


def _checked(sample: Sample) -> Sample:
    """With a gold that is one of its choices."""
    gold, choices = sample.gold, len(sample.parts) - 1
    if gold is None or (isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < choices):
        return sample
    raise UserError(
        f"sample {sample.key!r} has the answer {gold!r}; it must be a whole number from 0 to {choices - 1}, "
        "one for each choice"
    )
