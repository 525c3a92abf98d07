"""Aligning: which characters of a text each character of its repaired version came from."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from typing import Final, NamedTuple

from pretune.data.aligned import Aligned

LOOK: Final = 24  # how far ahead the two are compared, in words or characters, before they agree again
AHEAD: Final = sorted(product(range(LOOK), repeat=2), key=lambda two: (sum(two), abs(two[0] - two[1])))
STRAIGHT: Final = str.maketrans("“”„‘’‚", "\"\"\"'''")  # the repair that is the most frequent keeps its place
RUNS: Final = re.compile(r"\s+|\S+")


class Block(NamedTuple):
    """a[start:end] became b[first:last]."""

    start: int
    end: int
    first: int
    last: int


def aligned(source: str, target: str) -> Aligned:
    """`target` as a rewriting of `source`: equal words stand for one another, between them equal characters.

    What has no equal takes its share of what it stands in place of. Linear in the length of both.
    """
    if source == target:
        return Aligned.of(source)
    starts, ends = array("i"), array("i")
    for start, end, first, last in _by_character(source, target):
        _share(starts, ends, start, end, last - first)
    return Aligned(target, starts, ends)


def _by_character(source: str, target: str) -> Iterator[Block]:
    old, new = RUNS.findall(source), RUNS.findall(target)
    old_at = list(accumulate(map(len, old), initial=0))
    new_at = list(accumulate(map(len, new), initial=0))
    for block in _blocks(old, new):
        start, end, first, last = (
            old_at[block.start],
            old_at[block.end],
            new_at[block.first],
            new_at[block.last],
        )
        if source[start:end] == target[first:last]:
            yield Block(start, end, first, last)
            continue
        for inner in _blocks(source[start:end].translate(STRAIGHT), target[first:last].translate(STRAIGHT)):
            yield Block(start + inner.start, start + inner.end, first + inner.first, first + inner.last)


def _blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[Block]:
    """Both from left to right in blocks: stretches that are equal, and what lies between them."""
    i = j = 0
    while i < len(a) and j < len(b):
        here = (i, j)
        while i < len(a) and j < len(b) and a[i] == b[j]:
            i, j = i + 1, j + 1
        if here == (i, j):
            over, under = _next_equal(a, b, i, j)
            i, j = min(i + over, len(a)), min(j + under, len(b))
        yield Block(here[0], i, here[1], j)
    if i < len(a) or j < len(b):
        yield Block(i, len(a), j, len(b))


def _next_equal(a: Sequence[str], b: Sequence[str], i: int, j: int) -> tuple[int, int]:
    """How many of each to pass over until the two agree: the fewest, and rather as many of both."""
    for over, under in AHEAD:
        if i + over < len(a) and j + under < len(b) and a[i + over] == b[j + under]:
            return over, under
    return LOOK, LOOK


def _share(starts: array[int], ends: array[int], start: int, end: int, count: int) -> None:
    """`count` characters that stand for source[start:end]; for the one before it if that is empty."""
    if start == end:
        starts.extend([max(start - 1, 0)] * count)
        ends.extend([start] * count)
        return
    size = end - start
    starts.extend(start + k * size // count for k in range(count))
    ends.extend(start + -((-(k + 1) * size) // count) for k in range(count))
