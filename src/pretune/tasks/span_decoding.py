"""From scores of first and last tokens to the best spans of a passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretune.data.rows import Row
from pretune.data.samples import Span
from pretune.tasks.passages import candidates, stretch, widest_context

Floats = NDArray[np.float64]


class Guess(NamedTuple):
    """Characters of the passage, and how high they score as the answer."""

    span: Span
    score: float


def best_spans(
    windows: Sequence[tuple[Row, Floats, Floats]], step: Callable[[int], int], longest: int, most: int
) -> list[Guess]:
    """The `most` highest sums of a first and a last token's score, of different spans, highest first.

    Both are of one window, at most `longest` tokens apart in the order of the text. A span is taken from the
    window where its first token has the widest context (run_squad.py). Equals stand in the order of the text.
    """
    sizes = [stretch(row) for row, _, _ in windows]
    own = widest_context(
        [end - begin for begin, end in sizes], step(sizes[0][1] - sizes[0][0]) if sizes else 1
    )
    best: dict[Span, float] = {}
    for (row, start, end), (begin, _), widest in zip(windows, sizes, own, strict=True):
        order = candidates(row)
        allowed = [t - begin in widest for t in order]
        for first, last, score in _window(start[order], end[order], np.array(allowed), longest, most):
            span = Span(row.chars[order[first]].start, row.chars[order[last]].end)
            best[span] = max(score, best.get(span, score))
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
    return [Guess(span, score) for span, score in ranked[:most]]


def _window(
    start: Floats, end: Floats, allowed: NDArray[np.bool_], longest: int, most: int
) -> list[tuple[int, int, float]]:
    """First, last and score of the best of one window; `start` and `end` (n,) in the order of the text."""
    n = len(start)
    if not n:
        return []
    longest = min(longest, n)
    ends = np.concatenate([end, np.full(longest - 1, -np.inf)])
    sums = start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, longest)  # (n, longest)
    sums[~allowed] = -np.inf
    flat = sums.ravel()
    chosen = np.argpartition(-flat, most - 1)[:most] if most < len(flat) else np.arange(len(flat))
    return [
        (int(i) // longest, int(i) // longest + int(i) % longest, float(flat[i]))
        for i in chosen
        if np.isfinite(flat[i])
    ]
