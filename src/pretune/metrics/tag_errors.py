"""What taggers get wrong: which kinds of spans for which, and spans of which length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from pretune.metrics.classification import confusion as of_labels
from pretune.metrics.tagging import Scheme, Tags, chunks, share

NONE: Final = "no span"
LONGEST: Final = 5  # words; longer spans are counted with those

H = TypeVar("H", bound=Hashable)


class OfLength(NamedTuple):
    """How well spans of one length are found."""

    length: str  # words: "1", "2", …, "5+"
    true: int
    said: int
    f1: float


def confusion(
    golds: Sequence[Tags], answers: Sequence[Tags], scheme: Scheme
) -> tuple[list[str], list[list[int]]]:
    """(labels, counts[gold][said]): kinds of spans over the same words, or the tags of words where plain.

    A span that the other side does not have, or has with other ends, stands against "no span".
    """
    if scheme == "plain":
        true, said = ([tag for tags in side for tag in tags] for side in (golds, answers))
        labels, counts = of_labels(true, said, sorted({*true, *said}))
        return list(labels), counts.tolist()
    sides = [
        [{(x.start, x.end): x.kind for x in chunks(tags, scheme)} for tags in side]
        for side in (golds, answers)
    ]
    return confusion_of(sides[0], sides[1], NONE)


def confusion_of(
    golds: Sequence[Mapping[H, str]], answers: Sequence[Mapping[H, str]], none: str
) -> tuple[list[str], list[list[int]]]:
    """The same of places and the kinds that stand there; `none` where a side has nothing in that place."""
    true: list[str] = []
    said: list[str] = []
    for own, theirs in zip(golds, answers, strict=True):
        for place in dict.fromkeys([*own, *theirs]):
            true.append(own.get(place, none))
            said.append(theirs.get(place, none))
    labels, counts = of_labels(true, said, [*sorted({*true, *said} - {none}), none])
    return list(labels), counts.tolist()


def by_length(golds: Sequence[Tags], answers: Sequence[Tags], scheme: Scheme) -> list[OfLength]:
    """F1 of spans by their number of words; those that are neither there nor said are left out."""
    sides = [[set(chunks(tags, scheme)) for tags in side] for side in (golds, answers)]
    return by_length_of(sides[0], sides[1], lambda x: x.end - x.start)


def by_length_of(
    golds: Sequence[set[H]], answers: Sequence[set[H]], length: Callable[[H], int]
) -> list[OfLength]:
    """The same of whatever is found in each sample, and how many words it has."""
    right, said, true = Counter[int](), Counter[int](), Counter[int]()
    for own, theirs in zip(golds, answers, strict=True):
        for counter, found in ((right, own & theirs), (said, theirs), (true, own)):
            counter.update(min(length(x), LONGEST) for x in found)
    return [
        OfLength(
            f"{n}+" if n == LONGEST else str(n), true[n], said[n], share(2 * right[n], said[n] + true[n])
        )
        for n in sorted({*said, *true})
    ]
