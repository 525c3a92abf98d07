"""Balance: weights that make rare labels count as much as frequent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def class_weights(labels: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """samples / (classes · samples of the class): all classes weigh the same, and a sample 1 on average.

    A label that no sample has weighs 1.
    """
    counts = Counter(golds)
    return {x: len(golds) / (len(counts) * counts[x]) if counts[x] else 1.0 for x in labels}


def positive_weights(labels: Sequence[str], golds: Sequence[Iterable[str]]) -> dict[str, float]:
    """Samples without the label over samples with it: its yes weighs as much as its no.

    A label that no sample or every sample has weighs 1.
    """
    counts = Counter(label for gold in golds for label in set(gold))
    return {x: (len(golds) - counts[x]) / counts[x] if 0 < counts[x] < len(golds) else 1.0 for x in labels}


def in_order_of(labels: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """The weight of each label; 1 where none is given."""
    return [weights.get(label, 1.0) for label in labels]
