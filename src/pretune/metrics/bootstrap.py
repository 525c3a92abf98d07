"""How sure we are: one bootstrap over examples and seeds for all approaches, and McNemar's test.

An approach is one `Answered` for each seed. Its score on a resample is the mean over seeds of the score on
drawn examples, moved by what a draw of seeds moves the mean: an interval tells of other test sets and other
seeds. All approaches meet the same examples, and those of the same seeds the same draws of seeds: a
difference of two is paired by both.

The mean of S seeds drawn from S spreads by (S - 1) / S of what it should, so its deviations are stretched by
the root of S / (S - 1) (Rao & Wu 1988), which matters for three seeds. What examples and seeds do together
is in either draw and counted twice: a little too wide, as crossed bootstraps are (Owen 2007, "The pigeonhole
bootstrap"). One seed says nothing of others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretune.errors import UserError
from pretune.keys import key

Floats = NDArray[np.float64]
Metric = Callable[[Sequence[Any], Sequence[Any]], float]
Figure = Callable[[Any], float]  # of tallies added up: (K,), whole numbers where the tallies are
K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q", bound=Hashable)
CHUNK = 2_000_000  # draws held in memory at once


@dataclass(frozen=True)
class Answered:
    """What one training answered: the number of examples, and its score on any draw of them."""

    examples: int
    score: Callable[[Floats], Floats]
    """How often each example is drawn, (R, examples) -> (R,)."""
    values: Floats | None = None
    """Scores of the examples, where their mean is the score: many trainings are then one product."""


def of_mean(scores: ArrayLike) -> Answered:
    """A metric that is the mean of examples' scores: 1 or 0 for right or wrong, or any number."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 1 or not table.size:
        raise UserError(f"scores of examples must be (examples,), not of shape {table.shape}")
    return Answered(len(table), lambda counts: counts @ table / len(table), table)


def of_sums(figure: Figure, tallies: ArrayLike) -> Answered:
    """A figure of what examples add up to, (examples, K): F1 of spans."""
    table = np.asarray(tallies)
    if table.ndim != 2 or not table.size:
        raise UserError(f"tallies must be (examples, K), not of shape {table.shape}")
    whole = table.astype(np.float64)
    counted = np.issubdtype(table.dtype, np.integer)  # sums of counts are counts again

    def score(counts: Floats) -> Floats:
        sums = counts @ whole
        return _finite([figure(total) for total in (np.rint(sums).astype(np.int64) if counted else sums)])

    return Answered(len(table), score)


def of_items(metric: Metric, golds: Sequence[Any], answers: Sequence[Any]) -> Answered:
    """Any metric(golds, answers)."""
    if len(golds) != len(answers) or not golds:
        raise UserError(f"cannot score {len(answers)} answers with {len(golds)} golds")

    def score(counts: Floats) -> Floats:
        drawn = (np.repeat(np.arange(len(row)), row).tolist() for row in counts.astype(np.int64))
        return _finite([metric([golds[i] for i in one], [answers[i] for i in one]) for one in drawn])

    return Answered(len(golds), score)


def on_draws(
    trained: Mapping[K, Mapping[int, Answered]], resamples: int, seed: int = 0, shared: bool = True
) -> dict[K, Floats]:
    """Scores on drawn examples: (resamples, seeds) of each approach, seeds in rising order.

    `shared`: every seed has the same examples, as of a test set. Else each has its own, as of validation
    splits; approaches share those of a seed.
    """
    drawn: dict[tuple[K, int], list[Floats]] = {(who, s): [] for who, runs in trained.items() for s in runs}
    alike: dict[tuple[int, int], list[tuple[K, int]]] = {}  # what is scored on the same draws
    for who, s in drawn:
        alike.setdefault((-1 if shared else s, trained[who][s].examples), []).append((who, s))
    for (split, examples), members in alike.items():
        for counts in _counts(examples, resamples, np.random.default_rng(key(seed, "examples", split))):
            for one, scores in _scored({(who, s): trained[who][s] for who, s in members}, counts):
                drawn[one].append(scores)
    return {
        who: np.stack([np.concatenate(drawn[who, s]) for s in sorted(runs)], 1)
        for who, runs in trained.items()
    }


def resampled(trained: Mapping[K, Mapping[int, Answered]], resamples: int, seed: int = 0) -> dict[K, Floats]:
    """The score of each approach on each resample of examples and of seeds, (resamples,)."""
    found = {}
    for who, table in on_draws(trained, resamples, seed).items():
        runs = trained[who]
        whole = np.array([runs[s].score(np.ones((1, runs[s].examples)))[0] for s in sorted(runs)])
        found[who] = table.mean(1) + _drawn_seeds(sorted(runs), resamples, seed) @ whole
    return found


def error_of_splits(drawn: Floats) -> float:
    """One standard error of a mean over seeds that have examples of their own; `drawn` is (resamples, seeds).

    The spread of seeds holds that of their examples, but of few seeds it may be small by luck: the
    greater of the two counts.
    """
    within = float(drawn.var(0).mean())
    between = float(drawn.mean(0).var(ddof=1)) if drawn.shape[1] > 1 else 0.0
    return sqrt(max(within, between) / drawn.shape[1])


def percentiles(drawn: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled scores or differences."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided(differences: Floats) -> float:
    """Two-sided p of "no difference".

    Twice the smaller share of resampled differences on either side of zero (Efron & Tibshirani 1993,
    chapter 15), with one added above and below so that no p is zero.
    """
    tiny = 1e-12  # sums in another order are still ties
    below = (1 + (differences <= tiny).sum()) / (1 + len(differences))
    above = (1 + (differences >= -tiny).sum()) / (1 + len(differences))
    return float(min(1.0, 2 * min(below, above)))


def interval(
    scores: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean of `scores`, (seeds, examples) or (examples,)."""
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    return _interval([of_mean(row) for row in table], level, resamples, seed)


def interval_of(
    metric: Metric,
    golds: Sequence[Any],
    answers: Sequence[Sequence[Any]],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of any metric(golds, answers); `answers` holds one list per seed."""
    return _interval([of_items(metric, golds, said) for said in answers], level, resamples, seed)


def interval_of_sums(
    figure: Figure, tallies: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a figure of sums: tallies are (examples, K), or (seeds, examples, K)."""
    table = np.asarray(tallies)
    table = table[None] if table.ndim == 2 else table
    return _interval([of_sums(figure, one) for one in table], level, resamples, seed)


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """Exact two-sided p of McNemar's test: among examples that one alone got right, is it a coin's toss?"""
    if len(correct_a) != len(correct_b):
        raise UserError(f"cannot compare {len(correct_a)} answers with {len(correct_b)}")
    only_a = sum(bool(x) and not y for x, y in zip(correct_a, correct_b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(correct_a, correct_b, strict=True))
    tosses, ways, tail = only_a + only_b, 1, 0
    for heads in range(min(only_a, only_b) + 1):  # in whole numbers: exact at any size
        tail += ways
        ways = ways * (tosses - heads) // (heads + 1)
    return min(1.0, 2 * tail / (1 << tosses))


def _interval(runs: Sequence[Answered], level: float, resamples: int, seed: int) -> tuple[float, float]:
    return percentiles(resampled({"": dict(enumerate(runs))}, resamples, seed)[""], level)


def _scored(members: Mapping[Q, Answered], counts: Floats) -> Iterator[tuple[Q, Floats]]:
    """The scores of trainings on the same draws."""
    means = {who: one.values for who, one in members.items() if one.values is not None}
    if means:
        scores = counts @ np.stack(list(means.values()), 1) / counts.shape[1]  # (R, trainings)
        yield from zip(means, scores.T, strict=True)
    yield from ((who, one.score(counts)) for who, one in members.items() if one.values is None)


def _counts(examples: int, resamples: int, chance: np.random.Generator) -> Iterator[Floats]:
    """How often each example is drawn, in pieces: (R, examples) each."""
    step = max(1, CHUNK // examples)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = chance.integers(0, examples, (rows, examples)) + examples * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples)
        yield counts.astype(np.float64)


def _drawn_seeds(seeds: Sequence[int], resamples: int, seed: int) -> Floats:
    """What each seed counts in each resample beyond its share: (R, S), rows add up to 0."""
    number = len(seeds)
    if number == 1:
        return np.zeros((resamples, 1))
    chance = np.random.default_rng(key(seed, "seeds", tuple(seeds)))
    drawn = chance.multinomial(number, np.full(number, 1 / number), size=resamples)
    return (drawn - 1) / number * sqrt(number / (number - 1))


def _finite(scores: Sequence[float]) -> Floats:
    """A score that a draw leaves undefined, such as the correlation of a constant, counts as 0."""
    return np.array([score if isfinite(score) else 0.0 for score in scores])
