"""What goes wrong in coreference: clusters of which size are found, and links over which distance."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

from pretune.metrics.buckets import bucket, buckets
from pretune.metrics.coreference import Clusters, distinct

SIZES: Final = (1, 2, 3, 6, 11)  # mentions where groups of clusters begin
DISTANCES: Final = (0, 5, 10, 20, 50, 100)  # words between, where groups of links begin


class OfSize(NamedTuple):
    """How well clusters of one size are found."""

    size: str  # mentions
    clusters: int
    mentions: int
    found: float  # share of mentions that are in the answer
    together: float  # share of the cluster that a mention has beside it in the answer, itself included: B³


class OfDistance(NamedTuple):
    """How well mentions are linked to what was mentioned so far before."""

    words: str  # between a mention and the one before it
    links: int
    found: float


def by_size(golds: Sequence[Clusters], answers: Sequence[Clusters]) -> list[OfSize]:
    """By how many mentions gold clusters have; without sizes of which there are none."""
    rows = {name: [0, 0, 0, 0.0] for name in buckets(SIZES)}
    for gold, answer in zip(golds, answers, strict=True):
        place = _places(answer)
        for cluster in distinct(gold):
            row = rows[bucket(len(cluster), SIZES)]
            theirs = [place[mention] for mention in cluster if mention in place]
            row[0] += 1
            row[1] += len(cluster)
            row[2] += len(theirs)
            row[3] += sum(theirs.count(one) for one in theirs) / len(cluster)
    return [
        OfSize(name, int(clusters), int(mentions), found / mentions, together / mentions)
        for name, (clusters, mentions, found, together) in rows.items()
        if clusters
    ]


def by_distance(
    golds: Sequence[Clusters],
    answers: Sequence[Clusters],
    between: Callable[[int, Any, Any], int],
) -> list[OfDistance]:
    """By how many words stand between a mention and the last one of its cluster before it.

    `between` is told the number of the document, the earlier mention and the later one. A link is found
    where the answer has the mention together with any earlier one of its cluster. Mentions must be in order.
    """
    rows = {name: [0, 0] for name in buckets(DISTANCES)}
    for number, (gold, answer) in enumerate(zip(golds, answers, strict=True)):
        place = _places(answer)
        for cluster in distinct(gold):
            ordered = sorted(cluster)  # type: ignore[type-var]
            for k in range(1, len(ordered)):
                row = rows[bucket(between(number, ordered[k - 1], ordered[k]), DISTANCES)]
                own = place.get(ordered[k])
                row[0] += 1
                row[1] += own is not None and any(place.get(other) == own for other in ordered[:k])
    return [OfDistance(name, links, found / links) for name, (links, found) in rows.items() if links]


def _places(clusters: Clusters) -> dict[Hashable, int]:
    return {mention: number for number, some in enumerate(distinct(clusters)) for mention in some}
