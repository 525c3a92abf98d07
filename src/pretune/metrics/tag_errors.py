"""What taggers get wrong: which kinds of spans for which, and spans of which length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from pretune.metrics.classification import confusion as of_labels
from pretune.metrics.tagging import Scheme, Tags, chunks, share

NONE: Final = "no span"
LONGEST: Final = 5  # words; longer spans are counted with those


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
    true: list[str] = []
    said: list[str] = []
    for gold, answer in zip(golds, answers, strict=True):
        if scheme == "plain":
            true, said = true + list(gold), said + list(answer)
            continue
        own, theirs = ({(x.start, x.end): x.kind for x in chunks(tags, scheme)} for tags in (gold, answer))
        for span in sorted({*own, *theirs}):
            true.append(own.get(span, NONE))
            said.append(theirs.get(span, NONE))
    names = sorted({*true, *said} - {NONE}) + [NONE] * (scheme != "plain")
    labels, counts = of_labels(true, said, names)
    return list(labels), counts.tolist()


def by_length(golds: Sequence[Tags], answers: Sequence[Tags], scheme: Scheme) -> list[OfLength]:
    """F1 of spans by their number of words; those that are neither there nor said are left out."""
    right, said, true = Counter[int](), Counter[int](), Counter[int]()
    for gold, answer in zip(golds, answers, strict=True):
        own, theirs = set(chunks(gold, scheme)), set(chunks(answer, scheme))
        for counter, found in ((right, own & theirs), (said, theirs), (true, own)):
            counter.update(min(x.end - x.start, LONGEST) for x in found)
    return [
        OfLength(
            f"{n}+" if n == LONGEST else str(n), true[n], said[n], share(2 * right[n], said[n] + true[n])
        )
        for n in sorted({*said, *true})
    ]
