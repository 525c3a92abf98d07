"""The Pareto front: what no other is at least as good as in everything and better than in something."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a is nowhere worse than b and somewhere better; more is better."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def dominators(points: Sequence[Sequence[float]]) -> list[int | None]:
    """For each point the first that dominates it; None for those on the front."""
    return [next((i for i, other in enumerate(points) if dominates(other, point)), None) for point in points]
