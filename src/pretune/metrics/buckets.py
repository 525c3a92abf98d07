"""Numbers in a few groups, for tables of errors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def bucket(number: int, starts: Sequence[int]) -> str:
    """The group of a number: with starts 1, 2, 5 they are "1", "2–4" and "5+"; less counts as the first."""
    place = max(0, bisect_right(starts, number) - 1)
    if place + 1 == len(starts):
        return f"{starts[-1]}+"
    first, last = starts[place], starts[place + 1] - 1
    return str(first) if first == last else f"{first}\N{EN DASH}{last}"


def buckets(starts: Sequence[int]) -> list[str]:
    """All groups, in order."""
    return [bucket(start, starts) for start in starts]
