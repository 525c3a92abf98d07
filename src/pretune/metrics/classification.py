"""Scores of labels: accuracy, F1, each label's own, and the confusion matrix.

An item is one label (a string) or, for tasks with several labels, a tuple of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError

Counts = Counter[str]
Item = str | tuple[str, ...] | None


def accuracy(golds: Sequence[object], answers: Sequence[object]) -> float:
    """Share of items answered exactly as the gold says."""
    _same_length(golds, answers)
    return sum(gold == answer for gold, answer in zip(golds, answers, strict=True)) / len(golds)


def micro_f1(golds: Sequence[Item], answers: Sequence[Item]) -> float:
    """F1 of all label decisions pooled; frequent labels weigh most. 0 where nothing was there to find."""
    right, said, true = _counts(golds, answers)
    return _f1(right.total(), said.total(), true.total())


def macro_f1(golds: Sequence[Item], answers: Sequence[Item]) -> float:
    """Mean F1 of the labels found in golds or answers; each label weighs the same."""
    right, said, true = _counts(golds, answers)
    labels = said.keys() | true.keys()
    return sum(_f1(right[x], said[x], true[x]) for x in labels) / len(labels) if labels else 0.0


def matthews(golds: Sequence[str], answers: Sequence[str | None]) -> float:
    """Matthews' correlation, for more than two labels as Gorodkin (2004) has it; 0 where a side never varies.

    CoLA's score: 0 for whoever always gives one answer, however frequent.
    """
    right, said, true = _counts(golds, answers)
    n = len(golds)
    agreement = n * right.total() - sum(said[x] * true[x] for x in true)
    of_said, of_true = (n * n - sum(x * x for x in counts.values()) for counts in (said, true))
    return float(agreement / (of_said * of_true) ** 0.5) if of_said and of_true else 0.0


class LabelScores(NamedTuple):
    """How well one label is found; 0 where there was nothing to divide by."""

    precision: float  # of those said, how many are true
    recall: float  # of those true, how many are said
    f1: float
    golds: int


def by_label(
    golds: Sequence[Item], answers: Sequence[Item], labels: Sequence[str] = ()
) -> dict[str, LabelScores]:
    """Of the given labels, then of others found."""
    right, said, true = _counts(golds, answers)
    names = list(dict.fromkeys([*labels, *sorted({*said, *true})]))
    return {
        x: LabelScores(
            right[x] / said[x] if said[x] else 0.0,
            right[x] / true[x] if true[x] else 0.0,
            _f1(right[x], said[x], true[x]),
            true[x],
        )
        for x in names
    }


def confusion(
    golds: Sequence[str], answers: Sequence[str], labels: Sequence[str] = ()
) -> tuple[list[str], NDArray[np.int64]]:
    """Labels (the given ones, then others found) and counts, golds down, answers across."""
    _same_length(golds, answers)
    names = list(dict.fromkeys([*labels, *sorted({*golds, *answers})]))
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, ([place[x] for x in golds], [place[x] for x in answers]), 1)
    return names, counts


def _counts(golds: Sequence[Item], answers: Sequence[Item]) -> tuple[Counts, Counts, Counts]:
    """How often each label was right, said and true."""
    _same_length(golds, answers)
    right, said, true = Counts(), Counts(), Counts()
    for gold, answer in zip(map(_labels, golds), map(_labels, answers), strict=True):
        right.update(gold & answer)
        said.update(answer)
        true.update(gold)
    return right, said, true


def _labels(item: Item) -> set[str]:
    names: Iterable[str] = () if item is None else (item,) if isinstance(item, str) else item
    return set(names)


def _f1(right: int, said: int, true: int) -> float:
    return 2 * right / (said + true) if said + true else 0.0


def _same_length(golds: Sequence[object], answers: Sequence[object]) -> None:
    if len(golds) != len(answers) or not len(golds):
        raise UserError(f"cannot score {len(answers)} answers against {len(golds)} golds")
