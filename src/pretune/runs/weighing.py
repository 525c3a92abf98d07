"""Weighing: what scores on resampled examples and seeds say of the contenders, beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot, isfinite
from statistics import fmean
from typing import Any

import numpy as np

from pretune.metrics.bootstrap import (
    Answered,
    Figure,
    Floats,
    error_of_splits,
    of_items,
    of_mean,
    of_sums,
    on_draws,
    percentiles,
    resampled,
)
from pretune.metrics.classification import macro_f1, micro_f1
from pretune.metrics.learning_curves import REACH, SIZES, fit
from pretune.metrics.pareto import dominators
from pretune.metrics.regression import mae, pearson, rmse, spearman
from pretune.runs.cells import Finished
from pretune.runs.comparison import Contender, Curve, Evidence, Gain, Rank, Standing
from pretune.runs.selection import gathered, optimism_of_epochs

METRICS = {f.__name__: f for f in (micro_f1, macro_f1, pearson, spearman, mae, rmse)}
RESAMPLES = 10_000  # of sums: the smallest p is 2 / 10,001
FEWER = 1000  # where every resample is scored anew, and of fitted curves

STEPS = (1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8, REACH)  # times the labels, where curves are told

Group = Mapping[Contender, Sequence[Finished]]  # the seeds of each, in rising order


@dataclass(frozen=True)
class Scoring:
    """The metric that contenders are compared by."""

    metric: str
    sign: int  # 1 where higher is better, else -1
    figure: Figure | None = None  # of what samples add up to, where the metric is made so

    @property
    def resamples(self) -> int:
        return RESAMPLES if self.figure or self.metric == "accuracy" else FEWER

    def answered(
        self, golds: Sequence[Any], said: Sequence[Any], tallies: Sequence[Sequence[int]]
    ) -> Answered:
        if self.figure:
            return of_sums(self.figure, tallies)
        if self.metric == "accuracy":
            return of_mean([gold == one for gold, one in zip(golds, said, strict=True)])
        return of_items(METRICS[self.metric], _items(golds), _items(said))

    def of_test(self, cells: Sequence[Finished]) -> dict[int, Answered]:
        return {c.row.seed: self.answered(c.golds, c.predicted, c.tallies) for c in cells}

    def of_validation(self, cells: Sequence[Finished]) -> dict[int, Answered]:
        return {
            c.row.seed: self.answered(c.valid_golds, c.valid_predicted, c.valid_tallies)
            if c.valid_golds
            else _constant(c.validation[self.metric])
            for c in cells
        }


def draw(here: Group, scoring: Scoring) -> dict[Contender, Floats]:
    """The test score of each contender on each resample of test samples and seeds."""
    return resampled({who: scoring.of_test(cells) for who, cells in here.items()}, scoring.resamples)


def on_test(
    means: Mapping[Contender, float],
    drawn: Mapping[Contender, Floats],
    p_holm: Mapping[Contender, float],
    sign: int,
) -> list[Evidence]:
    def error(best: Contender, other: Contender) -> float:
        return float((drawn[best] - drawn[other]).std(ddof=1))

    return gathered("test", means, error, sign, p_holm=p_holm)


def on_validation(here: Group, scoring: Scoring) -> list[Evidence]:
    """Every seed has a validation split of its own, the same for all contenders."""
    metric, sign = scoring.metric, scoring.sign
    trained = {who: scoring.of_validation(cells) for who, cells in here.items()}
    tables = on_draws(trained, FEWER, shared=False)

    def error(best: Contender, other: Contender) -> float:
        seeds = [sorted(trained[who]) for who in (best, other)]
        common = sorted({*seeds[0]} & {*seeds[1]})
        if not common:
            return hypot(error_of_splits(tables[best]), error_of_splits(tables[other]))
        a, b = (
            tables[who][:, [mine.index(s) for s in common]]
            for who, mine in zip((best, other), seeds, strict=True)
        )
        return error_of_splits(a - b)

    means = {who: fmean(cell.validation[metric] for cell in cells) for who, cells in here.items()}
    optimism = {who: optimism_of_epochs(cells, metric, sign) for who, cells in here.items()}
    return gathered("validation", means, error, sign, optimism)


def gains(here: Group, drawn: Mapping[Contender, Floats], scoring: Scoring, size: int) -> list[Gain]:
    """Of every start over the same method from scratch: over the same recipe, else over the best there is."""
    found = []
    for who, cells in here.items():
        others = [one for one in here if one.method == who.method and one.start == "scratch"]
        if who.start == "scratch" or not others:
            continue
        same = [one for one in others if one.recipe == who.recipe]
        against = max(
            same or others, key=lambda one: scoring.sign * fmean(cell.row.score for cell in here[one])
        )
        mine, theirs = ({cell.row.seed: cell for cell in some} for some in (cells, here[against]))
        common = sorted(mine.keys() & theirs.keys())
        if not common:
            continue
        gap = scoring.sign * fmean(mine[s].row.score - theirs[s].row.score for s in common)
        pair = drawn
        if len(common) < len(mine) or len(common) < len(theirs):
            kept = {who: [mine[s] for s in common], against: [theirs[s] for s in common]}
            pair = draw(kept, scoring)
        low, high = percentiles(scoring.sign * (pair[who] - pair[against]))
        found.append(Gain(*who, against.recipe, size, gap, low, high))
    return found


def curves(
    ranking: Sequence[Rank],
    drawn: Mapping[int, Mapping[Contender, Floats]],
    sign: int,
    target: float | None,
) -> list[Curve]:
    """Of the contenders with three sizes or more; without a target the best score there is."""
    largest = max(drawn)
    wanted = target if target is not None else next(rank.mean for rank in ranking if rank.size == largest)
    found = []
    for who in dict.fromkeys(rank.contender for rank in ranking):
        mine = {rank.size: rank.mean for rank in ranking if rank.contender == who}
        sizes = sorted(mine)
        if len(sizes) < SIZES:
            continue
        scores = np.stack([drawn[size][who][:FEWER] for size in sizes], 1)  # (R, K)
        fitted = fit(sizes, [mine[size] for size in sizes], scores, sign > 0, 1.0 if sign > 0 else 0.0)
        at = [step * sizes[-1] for step in STEPS]
        ends = [(size, *fitted.band(size)) for size in at]
        few, many = fitted.labels_between(wanted, sign)
        c, a, b = (float(x[0]) for x in (fitted.c, fitted.a, fitted.b))
        reach = sizes[0], REACH * sizes[-1]
        found.append(
            Curve(
                *who,
                c,
                a,
                b,
                wanted,
                _within(float(fitted.labels(wanted, sign)[0]), *reach),
                _within(few, *reach),
                _within(many, *reach),
                [
                    {"size": size, "score": float(fitted.at(size)[0]), "low": low, "high": high}
                    for size, low, high in ends
                ],
            )
        )
    return found


def standings(costs: Mapping[Contender, Sequence[float]]) -> list[Standing]:
    """Of points where more is better, in the order of the ranking."""
    order = list(costs)
    by = dominators([costs[who] for who in order])
    return [
        Standing(*who, at is None, None if at is None else order[at]._asdict())
        for who, at in zip(order, by, strict=True)
    ]


def _within(number: float, least: int, most: int) -> int | None:
    """No fewer than were tried, for below them a curve says nothing; None of more than `most`."""
    return max(least, ceil(number - 1e-6)) if isfinite(number) and number <= most else None


def _constant(score: float) -> Answered:
    """A score whose answers were not kept: it varies with seeds alone."""
    return Answered(1, lambda counts: np.full(len(counts), score))


def _items(values: Sequence[Any]) -> list[Any]:
    return [tuple(x) if isinstance(x, list) else x for x in values]
