"""Learning curves: score = c - a n^-b, fitted to scores at several numbers n of labels, and read backwards.

The inverse power law of learning curves (Cortes et al. 1994, "Learning Curves: Asymptotic Values and Rate of
Convergence"; Hestness et al. 2017), fitted by least squares weighted by the variance of each score. For a
given b the law is a line in c and a, so b is searched on a grid and the line is solved exactly. Uncertainty
is that of curves fitted to resampled scores: scores of the same resample go together.

Further than ten times the labels a curve of three to five sizes says nothing that one could rely on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretune.errors import UserError

Floats = NDArray[np.float64]
SLOWEST, FASTEST = 0.05, 3.0  # b
STEPS = 60  # of b, and again between its neighbours
REACH = 10  # times the labels
SIZES = 3  # at least, for three parameters
TINY = 1e-9


@dataclass(frozen=True)
class Curves:
    """c - a n^-b for each of R resamples; the first is the curve of the scores as they are."""

    c: Floats  # (1 + R,)
    a: Floats
    b: Floats

    def at(self, size: float) -> Floats:  # (1 + R,)
        return self.c - self.a * size**-self.b

    def band(self, size: float, level: float = 0.95) -> tuple[float, float]:
        low, high = np.quantile(self.at(size)[1:], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def labels(self, target: float, sign: int = 1) -> Floats:  # (1 + R,)
        """How many labels each curve needs for `target`; infinite where it levels off before.

        `sign` is -1 of errors, which fall.
        """
        above, a = sign * (self.c - target), sign * self.a
        with np.errstate(divide="ignore", over="ignore"):
            wanted = (np.maximum(a, TINY) / np.maximum(above, TINY)) ** (1 / self.b)
        flat = a <= TINY  # a constant: reached at once or never
        return np.where(above <= 0, np.inf, np.where(flat, 1.0, wanted))

    def labels_between(self, target: float, sign: int = 1, level: float = 0.95) -> tuple[float, float]:
        """The percentile interval of `labels`; an end may be infinite."""
        wanted = np.sort(self.labels(target, sign)[1:])
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = (wanted[min(len(wanted) - 1, round(q * (len(wanted) - 1)))] for q in ends)
        return float(low), float(high)


def fit(
    sizes: ArrayLike, scores: ArrayLike, drawn: ArrayLike, higher: bool = True, best: float = 1.0
) -> Curves:
    """Curves of `scores` (K,) at K `sizes`, and of each row of `drawn` (R, K), resamples of them.

    No curve rises above `best`, nor falls with more labels; errors (`higher=False`) never fall below it.
    """
    n, y = np.asarray(sizes, np.float64), np.vstack([np.asarray(scores, np.float64), np.asarray(drawn)])
    if len(set(n.tolist())) < SIZES or y.shape[1:] != n.shape:
        raise UserError(f"a learning curve needs {SIZES} sizes with a score each; there are {len(n)}")
    sign = 1.0 if higher else -1.0
    y = sign * y  # (1 + R, K)
    spread = y[1:].var(0)
    weights = 1 / np.maximum(spread, max(float(spread.max()) * 1e-4, 1e-12))
    weights /= weights.sum()
    coarse = np.geomspace(SLOWEST, FASTEST, STEPS)
    _, _, at = _best_of(n, y, weights, np.tile(coarse, (len(y), 1)), sign * best)
    step = coarse[1] / coarse[0]
    fine = at[:, None] * np.geomspace(1 / step, step, STEPS)[None]
    c, a, b = _best_of(n, y, weights, np.clip(fine, SLOWEST, FASTEST), sign * best)
    return Curves(sign * c, sign * a, b)


def _best_of(n: Floats, y: Floats, weights: Floats, b: Floats, best: float) -> tuple[Floats, Floats, Floats]:
    """Of the exponents `b` (R, G) the one with the least error for each row, with its c and a."""
    x = n ** -b[..., None]  # (R, G, K)
    mean_x, mean_y = x @ weights, y @ weights  # (R, G) and (R,)
    off = x - mean_x[..., None]
    slope = (off * (y - mean_y[:, None])[:, None] * weights).sum(-1) / (off**2 @ weights)
    a = np.maximum(-slope, 0.0)
    c = mean_y[:, None] + a * mean_x
    over = c > best  # then c is `best`, and the line has one parameter
    held = (x * (best - y)[:, None] * weights).sum(-1) / (x**2 @ weights)
    a, c = np.where(over, np.maximum(held, 0.0), a), np.minimum(c, best)
    error = ((y[:, None] - c[..., None] + a[..., None] * x) ** 2) @ weights  # (R, G)
    at = error.argmin(1)
    rows = np.arange(len(y))
    return c[rows, at], a[rows, at], b[rows, at]
