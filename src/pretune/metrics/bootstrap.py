"""How sure we are: bootstrap intervals, the paired bootstrap and McNemar's test.

Scores of examples come as (seeds, examples), 1 or 0 for right or wrong, or any number whose mean is the
metric. Both examples and seeds are drawn anew, so an interval tells of other test sets and other seeds.
Metrics that are no mean of examples (F1, correlations) go through the `_of` functions, and
faster through `_of_sums` where they are made of what examples add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretune.errors import UserError
from pretune.keys import key

Floats = NDArray[np.float64]
Metric = Callable[[Sequence[Any], Sequence[Any]], float]
Figure = Callable[[NDArray[np.int64]], float]  # of tallies added up: (K,)
CHUNK = 2_000_000  # draws held in memory at once


def interval(
    scores: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean of `scores`, (seeds, examples) or (examples,)."""
    return _percentiles(_resampled_means(_table(scores), resamples, key(seed, "interval")), level)


def interval_of(
    metric: Metric,
    golds: Sequence[Any],
    answers: Sequence[Sequence[Any]],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of any metric(golds, answers); `answers` holds one list per seed."""
    chance = np.random.default_rng(key(seed, "interval"))
    drawn = np.empty(resamples)
    for r in range(resamples):
        examples = chance.integers(0, len(golds), len(golds))
        runs = chance.integers(0, len(answers), len(answers))
        drawn[r] = _mean_metric(metric, golds, [answers[s] for s in runs], examples)
    return _percentiles(drawn, level)


def interval_of_sums(
    figure: Figure, tallies: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a figure of what examples add up to.

    `tallies` are (examples, K), or (seeds, examples, K); the figure is of their sums over drawn examples, and
    its mean over drawn seeds.
    """
    chance, table = np.random.default_rng(key(seed, "interval")), _tallied(tallies)
    drawn = [_mean_figure(figure, table, _counts(chance, table.shape[1]), chance) for _ in range(resamples)]
    return _percentiles(np.array(drawn), level)


def paired_bootstrap(a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0) -> float:
    """Two-sided p of "a and b are as good", the same examples drawn for both; seeds drawn for each alone.

    Twice the smaller share of resampled differences on either side of zero (Efron & Tibshirani 1993,
    chapter 15), with one added above and below so that no p is zero.
    """
    a, b = _table(a), _table(b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"cannot compare scores of {a.shape[1]} examples with scores of {b.shape[1]}")
    start = key(seed, "paired")
    return _two_sided(_resampled_means(a, resamples, start, "a") - _resampled_means(b, resamples, start, "b"))


def paired_bootstrap_of(
    metric: Metric,
    golds: Sequence[Any],
    a: Sequence[Sequence[Any]],
    b: Sequence[Sequence[Any]],
    resamples: int = 1000,
    seed: int = 0,
) -> float:
    """`paired_bootstrap` for any metric; `a` and `b` hold one list of answers per seed."""
    chance = np.random.default_rng(key(seed, "paired"))
    differences = np.empty(resamples)
    for r in range(resamples):
        examples = chance.integers(0, len(golds), len(golds))
        of_a = [a[s] for s in chance.integers(0, len(a), len(a))]
        of_b = [b[s] for s in chance.integers(0, len(b), len(b))]
        differences[r] = _mean_metric(metric, golds, of_a, examples) - _mean_metric(
            metric, golds, of_b, examples
        )
    return _two_sided(differences)


def paired_bootstrap_of_sums(
    figure: Figure, a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0
) -> float:
    """`paired_bootstrap` for a figure of sums, as `interval_of_sums` has it: (seeds, examples, K) each."""
    chance, of_a, of_b = np.random.default_rng(key(seed, "paired")), _tallied(a), _tallied(b)
    if of_a.shape[1:] != of_b.shape[1:]:
        raise UserError(f"cannot compare tallies of shape {of_a.shape} with those of shape {of_b.shape}")
    differences = np.empty(resamples)
    for r in range(resamples):
        counts = _counts(chance, of_a.shape[1])
        left, right = (_mean_figure(figure, table, counts, chance) for table in (of_a, of_b))
        differences[r] = left - right
    return _two_sided(differences)


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


def _resampled_means(table: Floats, resamples: int, start: int, side: str = "") -> Floats:
    """Means over drawn seeds and examples; the examples depend on `start` alone, the seeds on `side` too."""
    seeds, examples = table.shape
    chance = np.random.default_rng(key(start, "seeds", side))
    weights = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds  # (R, seeds)
    means = np.empty(resamples)
    for rows, drawn in _draws(examples, resamples, np.random.default_rng(start)):
        mixed = weights[rows] @ table  # (rows, examples)
        means[rows] = np.take_along_axis(mixed, drawn, 1).mean(1)
    return means


def _draws(
    examples: int, resamples: int, chance: np.random.Generator
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    step = max(1, CHUNK // examples)
    for first in range(0, resamples, step):
        rows = slice(first, min(first + step, resamples))
        yield rows, chance.integers(0, examples, (rows.stop - rows.start, examples))


def _mean_metric(
    metric: Metric, golds: Sequence[Any], answers: Sequence[Sequence[Any]], examples: NDArray[np.int64]
) -> float:
    drawn = [golds[i] for i in examples]
    scores = [metric(drawn, [run[i] for i in examples]) for run in answers]
    return fsum(scores) / len(scores)


def _counts(chance: np.random.Generator, examples: int) -> NDArray[np.int64]:
    """How often each example is drawn: (examples,)."""
    return np.bincount(chance.integers(0, examples, examples), minlength=examples)


def _mean_figure(
    figure: Figure, table: NDArray[np.int64], counts: NDArray[np.int64], chance: np.random.Generator
) -> float:
    seeds = chance.integers(0, len(table), len(table))
    return fsum(figure(counts @ table[s]) for s in seeds) / len(seeds)


def _tallied(tallies: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(tallies)
    table = table[None] if table.ndim == 2 else table
    if table.ndim != 3 or not table.size:
        raise UserError(f"tallies must be (seeds, examples, K), not of shape {table.shape}")
    return table


def _two_sided(differences: Floats) -> float:
    tiny = 1e-12  # sums in another order are still ties
    below = (1 + (differences <= tiny).sum()) / (1 + len(differences))
    above = (1 + (differences >= -tiny).sum()) / (1 + len(differences))
    return float(min(1.0, 2 * min(below, above)))


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _table(scores: ArrayLike) -> Floats:
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if table.ndim != 2 or not table.size:
        raise UserError(f"scores of examples must be (seeds, examples), not of shape {table.shape}")
    return table
