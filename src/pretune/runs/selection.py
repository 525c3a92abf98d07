"""Selection: the simplest approach within one standard error of the best, and what looking for it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretune.runs.comparison import BASELINES, Comparison, Contender, Evidence

if TYPE_CHECKING:
    from pretune.runs.cells import Finished

Floats = NDArray[np.float64]
ALIKE = 1.5  # costs within this factor count as equal: clocks are no finer
CLEAR = 0.05  # of Holm's p


class Cost(NamedTuple):
    """What a contender costs at the largest size."""

    train_seconds: float
    predictions_per_second: float


def costs_of(comparison: Comparison) -> dict[Contender, Cost]:
    size = comparison.sizes[-1]
    return {
        who: Cost(*(comparison.cost(who, size, what) for what in Cost._fields))
        for who in (rank.contender for rank in comparison.top())
    }


def gathered(
    data: str,
    means: Mapping[Contender, float],
    errors: Callable[[Contender, Contender], float],
    sign: int,
    optimism: Mapping[Contender, float] | None = None,
    p_holm: Mapping[Contender, float] | None = None,
) -> list[Evidence]:
    """The contenders of `means` beside the best of them, best first; `errors(best, other)` of a gap."""
    off = optimism or {}
    true = {who: mean - sign * off.get(who, 0.0) for who, mean in means.items()}
    order = sorted(means, key=lambda who: -sign * true[who])
    best = order[0]
    return [
        Evidence(
            *who,
            data,
            means[who],
            off.get(who, 0.0),
            sign * (true[best] - true[who]),
            errors(best, who) if who != best else 0.0,
            (p_holm or {}).get(who) if who != best else None,
        )
        for who in order
    ]


def simplest(found: Sequence[Evidence], costs: Mapping[Contender, Cost]) -> Contender:
    """The simplest within one standard error of the best (Breiman et al. 1984, section 3.4.3).

    A baseline is simpler than any encoder; then what trains faster, then what answers faster, is simpler; of
    what costs about the same the better one is taken. The error is that of the paired gap.
    """
    within = [one for one in found if one.within]
    plain = [one for one in within if one.method in BASELINES]
    left = plain or within
    least = min(costs[one.contender].train_seconds for one in left)
    left = [one for one in left if costs[one.contender].train_seconds <= ALIKE * max(least, 0.01)]
    most = max(costs[one.contender].predictions_per_second for one in left)
    left = [one for one in left if costs[one.contender].predictions_per_second * ALIKE >= most]
    return min(left, key=lambda one: one.gap).contender


def clearly_worse(one: Evidence) -> bool:
    """Whether a test says so, corrected for the number of contenders."""
    return one.p_holm is not None and one.p_holm < CLEAR


def optimism_of_search(
    drawn: Mapping[Contender, Floats], means: Mapping[Contender, float], sign: int
) -> float:
    """By how much the best of several is too good where it was found.

    On each resample the best is looked for anew: what it scores there beyond its score on the whole data.
    """
    order = list(means)
    table = sign * np.stack([drawn[who] for who in order])  # (C, R)
    whole = sign * np.array([means[who] for who in order])
    best = table.argmax(0)
    return max(0.0, float((table.max(0) - whole[best]).mean()))


def optimism_of_epochs(cells: Sequence[Finished], metric: str, sign: int) -> float:
    """By how much validation scores are too good, since each is the best of several epochs or strengths.

    Tibshirani & Tibshirani (2009): the best of each seed less, on the same seed, what is best over all seeds.
    0 where it cannot be known: one seed, or scores that are not the best of those on record.
    """
    curves = []
    for cell in cells:
        known = [float(one["scores"][metric]) for one in cell.history if one.get("scores")]
        scores = [sign * score if isfinite(score) else 0.0 for score in known]
        if not scores or abs(max(scores) - sign * cell.validation[metric]) > 1e-9:
            return 0.0
        curves.append(scores)
    if len(curves) < 2:
        return 0.0
    shortest = min(map(len, curves))
    table = np.array([scores[:shortest] for scores in curves])  # (S, tries)
    together = int(table.mean(0).argmax())
    return fmean(max(scores) - row[together] for scores, row in zip(curves, table, strict=True))
