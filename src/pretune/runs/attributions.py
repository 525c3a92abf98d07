"""Attributions: what each token of a text adds to a model's score, by its gradient or by its absence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pretune.data.rows import Row
from pretune.data.samples import Part, Sample, Span
from pretune.errors import UsageError, choose
from pretune.runs.trained import TrainedModel, evaluating
from pretune.tasks.classification import Classification
from pretune.tensors.batch import Batch
from pretune.tensors.lengths import answer_batches
from pretune.training.sources import task_batch

Way = Literal["integrated", "gradient", "occlusion"]
Baseline = Literal["zero", "unknown"]
Occlude = Literal["removed", "unknown"]

TOKENS = 4096  # at most, of several readings that are differentiated together


@dataclass(frozen=True)
class Explaining:
    """How scores are attributed to words."""

    method: Way = "integrated"
    """integrated gradients (Sundararajan et al. 2017), gradient × input, or occlusion: each word left out."""
    steps: int = 50
    """Of integrated: where on the way from the baseline to the text gradients are taken."""
    baseline: Baseline = "zero"
    """Of integrated: what a word is before it is one: a vector of zeros, or the unknown word's."""
    occlude: Occlude = "removed"
    """Of occlusion: whether a word is taken out, or replaced by the unknown word."""

    def __post_init__(self) -> None:
        for name, possible in (("method", Way), ("baseline", Baseline), ("occlude", Occlude)):
            if getattr(self, name) not in get_args(possible):
                raise choose(name, getattr(self, name), get_args(possible))
        if self.steps < 1:
            raise UsageError(f"steps is {self.steps}; it must be at least 1")


@dataclass(frozen=True)
class Attributed:
    """What one model says of one sample."""

    score: float  # log-odds of the label, or the number that is predicted
    baseline: float | None  # the score of the text without its words, for integrated gradients
    units: dict[tuple[int, Span], float]  # (part, characters) -> what they add to the score


def attributed(trained: TrainedModel, sample: Sample, label: str | None, how: Explaining) -> Attributed:
    """`label` is whose log-odds are explained; None for a task of numbers."""
    question = _Question(trained, sample, label)
    with evaluating(trained.model), _differentiable(trained.model):
        if how.method == "occlusion":
            return question.occluded(how.occlude)
        trained.start.encoder.purpose("task")
        return question.integrated(how) if how.method == "integrated" else question.gradient()


def units_of(rows: Sequence[Row]) -> dict[tuple[int, Span], list[tuple[int, int]]]:
    """Stretches of text and the tokens (row, place) that stand for them, in the order of the text.

    Tokens that share a character, such as a word and the mark of its capital, are one unit; those that cover
    none, such as the mark of the beginning, are in none.
    """
    found: list[tuple[int, int, int, int, int]] = []  # part, start, end, row, token
    for n, row in enumerate(rows):
        for t, (part, span) in enumerate(zip(row.part, row.chars, strict=True)):
            if part >= 0 and span.end > span.start:
                found.append((part, span.start, span.end, n, t))
    units: list[tuple[int, int, int, list[tuple[int, int]]]] = []
    for part, start, end, n, t in sorted(found):
        if units and units[-1][0] == part and start < units[-1][2]:
            last = units[-1]
            units[-1] = (part, last[1], max(last[2], end), [*last[3], (n, t)])
        else:
            units.append((part, start, end, [(n, t)]))
    return {(part, Span(start, end)): tokens for part, start, end, tokens in units}


class _Question:
    """A model, a sample, and the score that is to be explained."""

    def __init__(self, trained: TrainedModel, sample: Sample, label: str | None) -> None:
        self.trained, self.sample, self.label = trained, sample, label
        self.model, self.encoder = trained.model, trained.model.encoder
        self.device = next(trained.model.parameters()).device
        (self.rows,) = trained.learned.rows(trained.start.codec, [sample])
        self.units = units_of(self.rows)

    def gradient(self) -> Attributed:
        batch = self._batch([self.rows])
        vectors = self.encoder.vectors(batch).detach().requires_grad_()
        score = self._read(vectors, batch)
        (slope,) = torch.autograd.grad(score.sum(), vectors)
        return self._gathered((vectors * slope).sum(-1), float(score.detach()), None)

    def integrated(self, how: Explaining) -> Attributed:
        """(x - b) · ∫ grad f(b + a (x - b)) da, by Gauss and Legendre's rule; marks stay as they are."""
        batch = self._batch([self.rows])
        with torch.no_grad():
            vectors = self.encoder.vectors(batch)  # (N, T, D)
            way = vectors - self._baseline(batch, how.baseline)
            way = way * self._text(batch)[..., None]  # (N, T, D)
            ends = float(self._read(vectors - way, batch)), float(self._read(vectors, batch))
        total = torch.zeros_like(vectors)
        nodes, weights = np.polynomial.legendre.leggauss(how.steps)
        for some in self._some(how.steps):
            many = self._batch([self.rows] * len(some))
            shares = torch.tensor((nodes[some] - 1) / 2, dtype=vectors.dtype, device=self.device)
            points = vectors + shares[:, None, None, None] * way  # (k, N, T, D)
            points = points.flatten(0, 1).requires_grad_()
            (slopes,) = torch.autograd.grad(self._read(points, many).sum(), points)
            shares = torch.tensor(weights[some] / 2, dtype=vectors.dtype, device=self.device)
            total += (slopes.view(len(some), *vectors.shape) * shares[:, None, None, None]).sum(0)
        return self._gathered((way * total).sum(-1), ends[1], ends[0])

    def occluded(self, occlude: Occlude) -> Attributed:
        """The score of the text less that of the text without the unit."""
        asked = [(self.sample, self.rows)]
        asked += [self._without(tokens, occlude) for tokens in self.units.values()]
        scores = [0.0] * len(asked)
        with torch.no_grad():
            for wanted in answer_batches([max(map(len, rows)) for _, rows in asked], 64):
                samples, rows = [asked[i][0] for i in wanted], [asked[i][1] for i in wanted]
                batch = self._batch(rows, samples)
                logits = self.model(batch).scores["logits"]
                for i, score in zip(wanted, self._score(logits).tolist(), strict=True):
                    scores[i] = score
        added = (scores[0] - score for score in scores[1:])
        return Attributed(scores[0], None, dict(zip(self.units, added, strict=True)))

    def _without(self, tokens: Sequence[tuple[int, int]], occlude: Occlude) -> tuple[Sample, list[Row]]:
        if occlude == "unknown":
            unknown = self._unknown()
            return self.sample, [
                _replaced(row, {t for m, t in tokens if m == n}, unknown) for n, row in enumerate(self.rows)
            ]
        rows = [_shorter(row, {t for m, t in tokens if m == n}) for n, row in enumerate(self.rows)]
        if all(len(row) for row in rows):
            return self.sample, rows
        blank = replace(self.sample, parts=tuple(Part("") for _ in self.sample.parts))
        (empty,) = self.trained.learned.rows(self.trained.start.codec, [blank])
        if len(empty) != len(rows):
            return blank, empty
        return self.sample, [row if len(row) else none for row, none in zip(rows, empty, strict=True)]

    def _unknown(self) -> int:
        codec: Any = self.trained.start.codec
        unknown = getattr(codec, "unknown_id", None)
        if unknown is None or getattr(codec, "spell", None) is not None:
            name = self.trained.start.method.name
            raise UsageError(f"{name} has no unknown word to put in a word's place; leave words out instead")
        return int(unknown)

    def _baseline(self, batch: Batch, baseline: Baseline) -> Tensor | float:
        if baseline == "zero":
            return 0.0
        return self.encoder.vectors(replace(batch, ids=torch.full_like(batch.ids, self._unknown())))

    def _text(self, batch: Batch) -> Tensor:
        """Which tokens stand for text: (N, T)."""
        where = torch.zeros(batch.mask.shape, device=self.device)
        for tokens in self.units.values():
            for n, t in tokens:
                where[n, t] = 1
        return where

    def _some(self, steps: int) -> Iterator[list[int]]:
        """Steps that are taken together."""
        size = max(1, TOKENS // (len(self.rows) * max(map(len, self.rows))))
        yield from (list(range(k, min(k + size, steps))) for k in range(0, steps, size))

    def _batch(self, rows: Sequence[list[Row]], samples: Sequence[Sample] = ()) -> Batch:
        samples = samples or [self.sample] * len(rows)
        codec = self.trained.start.codec
        return task_batch(self.trained.learned, codec, samples, rows, gold=False).to(self.device)

    def _read(self, vectors: Tensor, batch: Batch) -> Tensor:
        encoded = self.encoder.read_vectors(vectors, batch)
        return self._score(self.model.head(encoded, batch)["logits"])

    def _score(self, logits: Tensor) -> Tensor:
        """(B, C) -> log-odds of the label, or the number, of each sample: (B,)."""
        task = self.trained.task
        assert isinstance(task, Classification)
        logits = logits.double()
        if self.label is None:
            return task.values(logits)
        place = task.labels.index(self.label)
        if task.kind == "many":
            return logits[:, place]
        others = [c for c in range(len(task.labels)) if c != place]
        return logits[:, place] - logits[:, others].logsumexp(1)

    def _gathered(self, tokens: Tensor, score: float, baseline: float | None) -> Attributed:
        values = tokens.detach().double().cpu()
        units = {unit: float(sum(values[n, t] for n, t in places)) for unit, places in self.units.items()}
        return Attributed(score, baseline, units)


def _shorter(row: Row, gone: set[int]) -> Row:
    """The row without some tokens."""
    kept = [t for t in range(len(row)) if t not in gone]
    spelled = None if row.spelled is None else [row.spelled[t] for t in kept]
    ids, segments, part = ([x[t] for t in kept] for x in (row.ids, row.segments, row.part))
    return Row(ids, segments, part, [row.chars[t] for t in kept], spelled)


def _replaced(row: Row, gone: set[int], unknown: int) -> Row:
    """The row with some tokens unknown; they cover no text, so no word vector beside them says the word."""
    ids = [unknown if t in gone else number for t, number in enumerate(row.ids)]
    chars = [Span(span.start, span.start) if t in gone else span for t, span in enumerate(row.chars)]
    return replace(row, ids=ids, chars=chars)


def _differentiable(model: nn.Module) -> Any:
    """cuDNN gives a recurrent module of torch no gradient unless it is training; torch itself does."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent)
