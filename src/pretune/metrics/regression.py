"""Scores of numbers: correlation and error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretune.errors import UserError


def pearson(golds: ArrayLike, answers: ArrayLike) -> float:
    """Linear correlation; 0 where either side is constant, so that a model that learnt nothing ranks last."""
    x, y = _pair(golds, answers)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / size, -1, 1)) if size > 1e-12 * len(x) else 0.0


def spearman(golds: ArrayLike, answers: ArrayLike) -> float:
    """Pearson's correlation of ranks; equal values share their mean rank."""
    x, y = _pair(golds, answers)
    return pearson(_ranks(x), _ranks(y))


def mae(golds: ArrayLike, answers: ArrayLike) -> float:
    """Mean absolute error."""
    x, y = _pair(golds, answers)
    return float(np.abs(x - y).mean())


def rmse(golds: ArrayLike, answers: ArrayLike) -> float:
    """Root of the mean squared error."""
    x, y = _pair(golds, answers)
    return float(np.sqrt(np.square(x - y).mean()))


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


def _pair(golds: ArrayLike, answers: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(golds, dtype=np.float64), np.asarray(answers, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise UserError(f"cannot score answers of shape {y.shape} against golds of shape {x.shape}")
    return x, y
