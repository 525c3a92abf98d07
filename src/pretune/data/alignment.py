"""Alignment: which tokens of a row stand for which words, by their characters alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from pretune.data.rows import Row
from pretune.data.samples import Span


def tokens_of(row: Row, part: int, words: Sequence[Span]) -> list[list[int]]:
    """Of each word the tokens that share a character with it, in the order of the row; none for some words.

    A token may stand for several words, as where a codec counts repeated ones.
    """
    own = sorted(
        (span.start, span.end, t)
        for t, (p, span) in enumerate(zip(row.part, row.chars, strict=True))
        if p == part and span.end > span.start
    )
    starts = [start for start, _, _ in own]
    reach = list(accumulate((end for _, end, _ in own), max))  # never falls, whatever tokens overlap
    return [
        sorted(t for _, end, t in own[bisect_right(reach, first) : bisect_left(starts, last)] if end > first)
        for first, last in words
    ]


def nearest_token(row: Row, part: int, word: Span) -> int:
    """The token that ends nearest before a word, else begins nearest behind it, else the row's first."""
    own = [
        (span, t)
        for t, (p, span) in enumerate(zip(row.part, row.chars, strict=True))
        if p == part and span.end > span.start
    ]
    before = [(span.end, t) for span, t in own if span.end <= word.start]
    behind = [(span.start, t) for span, t in own if span.start >= word.end]
    return max(before)[1] if before else min(behind)[1] if behind else 0
