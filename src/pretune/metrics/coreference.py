"""Coreference: which mentions belong together, scored as the shared task of CoNLL 2012 scores it.

A document's answer is clusters of mentions; a mention is anything hashable, here the span of its characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError

Clusters = Sequence[Sequence[Hashable]]
Sides = tuple[float, float, float, float]  # what recall divides, by what; what precision divides, by what

METRICS: Final = ("muc", "b_cubed", "ceaf_e")  # whose mean is CoNLL's score


def tallies(golds: Sequence[Clusters], answers: Sequence[Clusters]) -> NDArray[np.float64]:
    """What scores are made of, per document, to be added up: (documents, 16).

    Four numbers each of MUC, B³, CEAF-e and mentions: what recall divides and by what, the same of precision.
    Singletons count as they stand in either side, as in the official scorer: MUC, which counts links, does
    not see them, the others do. Of a mention that comes twice the first stays.
    """
    if len(golds) != len(answers) or not len(golds):
        raise UserError(f"cannot score {len(answers)} answers against {len(golds)} golds")
    rows = np.zeros((len(golds), 16))
    for row, gold, answer in zip(rows, golds, answers, strict=True):
        key, said = distinct(gold), distinct(answer)
        row[:] = (*muc(key, said), *b_cubed(key, said), *ceaf_e(key, said), *mentions(key, said))
    return rows


def scores_of(total: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Scores from tallies added up: (16,). 0 where there was nothing to divide by."""
    found: dict[str, float] = {}
    for number, name in enumerate((*METRICS, "mention")):
        right, true, said_right, said = map(float, total[4 * number : 4 * number + 4])
        recall, precision = _share(right, true), _share(said_right, said)
        f1 = _share(2 * recall * precision, recall + precision)
        found |= {f"{name}_f1": f1, f"{name}_precision": precision, f"{name}_recall": recall}
    return {"conll_f1": sum(found[f"{name}_f1"] for name in METRICS) / len(METRICS), **found}


def distinct(clusters: Clusters) -> list[list[Hashable]]:
    """Clusters in which every mention stands once, where it came first; those left empty go."""
    seen: set[Hashable] = set()
    kept = []
    for cluster in clusters:
        own = [mention for mention in dict.fromkeys(cluster) if mention not in seen]
        seen.update(own)
        kept += [own] if own else []
    return kept


def muc(key: Clusters, said: Clusters) -> Sides:
    """Links (Vilain et al. 1995): a cluster of n mentions has n - 1, and loses one for each cut."""
    return (*_links(key, said), *_links(said, key))


def _links(clusters: Clusters, others: Clusters) -> tuple[float, float]:
    """How many links of `clusters` the others have too, and how many there are.

    A mention that the others lack is a part of its own.
    """
    place = _places(others)
    kept = 0
    for cluster in clusters:
        parts = {place[mention] for mention in cluster if mention in place}
        kept += len(cluster) - len(parts) - sum(mention not in place for mention in cluster)
    return kept, sum(len(cluster) - 1 for cluster in clusters)


def b_cubed(key: Clusters, said: Clusters) -> Sides:
    """Mention by mention, how much of its cluster is found (Bagga & Baldwin 1998).

    A mention that the other side lacks has found nothing.
    """
    return (*_overlap(key, said), *_overlap(said, key))


def _overlap(clusters: Clusters, others: Clusters) -> tuple[float, float]:
    place = _places(others)
    found = 0.0
    for cluster in clusters:
        shared = Counter(place[mention] for mention in cluster if mention in place)
        found += sum(count * count for count in shared.values()) / len(cluster)
    return found, sum(map(len, clusters))


def ceaf_e(key: Clusters, said: Clusters) -> Sides:
    """phi4(K, S) = 2 |K ∩ S| / (|K| + |S|), summed over the one-to-one alignment that makes it largest
    (Luo 2005), out of as many as there are clusters.
    """
    if not key or not said:
        return 0.0, len(key), 0.0, len(said)
    from scipy.optimize import linear_sum_assignment

    place = _places(said)
    alike = np.zeros((len(key), len(said)))
    for row, cluster in zip(alike, key, strict=True):
        for other, count in Counter(place[m] for m in cluster if m in place).items():
            row[other] = 2 * count / (len(cluster) + len(said[other]))
    best = float(alike[linear_sum_assignment(alike, maximize=True)].sum())
    return best, len(key), best, len(said)


def mentions(key: Clusters, said: Clusters) -> Sides:
    """Which mentions were found, whatever cluster they are in."""
    true, found = set(_flat(key)), set(_flat(said))
    right = len(true & found)
    return right, len(true), right, len(found)


def _places(clusters: Clusters) -> dict[Hashable, int]:
    return {mention: number for number, cluster in enumerate(clusters) for mention in cluster}


def _flat(clusters: Clusters) -> Iterable[Hashable]:
    return (mention for cluster in clusters for mention in cluster)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
