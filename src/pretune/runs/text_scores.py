"""What language models say of text: the cost of its words, perplexity, words that could stand in a place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError
from pretune.tasks.next_token import perplexity

Nats = NDArray[np.float64]


@dataclass(frozen=True)
class TextScore:
    """Log-probabilities, in nats, of each word of a text, each way; of the marks around it as well."""

    words: tuple[str, ...]
    known: tuple[bool, ...]  # a word outside the vocabulary is scored as the unknown word
    forward: Nats | None  # (T,) of each word given those to its left
    backward: Nats | None  # (T,) given those to its right
    end: float = nan  # of the mark of the end, given all words; NaN where a model predicts none
    start: float = nan  # of the mark of the beginning, given all words from the right
    around: Nats | None = None  # (T,) given all others, of a model that reads both sides at once

    @property
    def nats(self) -> tuple[float, float]:
        """What the text costs, forward and backward: minus the sum of all that is predicted."""
        return _cost(self.forward, self.end), _cost(self.backward, self.start)

    @property
    def targets(self) -> tuple[int, int]:
        return _count(self.forward, self.end), _count(self.backward, self.start)

    @property
    def mean(self) -> float:
        """Log-probability of a target, on average over all that is predicted; NaN where nothing is."""
        targets = sum(self.targets) + _count(self.around, nan)
        return -(sum(self.nats) + _cost(self.around, nan)) / targets if targets else nan


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean cost of all targets: words and the marks that end texts."""

    value: float  # over all targets of both ways; of the one way that the model has, where it has one
    forward: float | None
    backward: float | None
    targets: int

    def __float__(self) -> float:
        return self.value

    @classmethod
    def of(cls, scores: Iterable[TextScore]) -> Perplexity:
        """Of some texts together; of models that read both sides at once it is the pseudo-perplexity."""
        nats, targets = [0.0, 0.0, 0.0], [0, 0, 0]  # forward, backward, around
        for score in scores:
            for way, (cost, count) in enumerate(zip(score.nats, score.targets, strict=True)):
                nats[way] += cost
                targets[way] += count
            nats[2] += _cost(score.around, nan)
            targets[2] += _count(score.around, nan)
        if not sum(targets):
            raise UserError("there is no text to score: nothing but blank lines")
        each = [perplexity(n, t) if t else None for n, t in zip(nats, targets, strict=True)]
        return cls(perplexity(sum(nats), sum(targets)), each[0], each[1], sum(targets))


@dataclass(frozen=True)
class Substitute:
    """A word that could stand in a place."""

    word: str
    probability: float  # of all words that could
    forward: float  # its log-probability given the left; NaN where the model does not read that way
    backward: float  # given the right


def _cost(side: Nats | None, mark: float) -> float:
    if side is None:
        return 0.0
    return -float(np.nansum(side)) - (0.0 if isnan(mark) else mark)


def _count(side: Nats | None, mark: float) -> int:
    return 0 if side is None else int((~np.isnan(side)).sum()) + (not isnan(mark))
