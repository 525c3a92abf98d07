"""Pretraining data as BERT's release makes it: pairs of segments, cut to size, with masked words.

The order in which the release (`create_pretraining_data.py`) asks its generator of random numbers is kept,
so that the same documents and seed give the same instances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from pretune.errors import UsageError

Ids = list[int]

TRIES = 10  # to draw another document than the one at hand


class Sentences(Protocol):
    """A document: of each sentence the ids."""

    def __len__(self) -> int: ...

    def __getitem__(self, n: int, /) -> Sequence[int]: ...


class Documents(Protocol):
    """None is without sentences, no sentence without tokens."""

    def __len__(self) -> int: ...

    def __getitem__(self, d: int, /) -> Sentences: ...


@dataclass(frozen=True)
class Making:
    """How texts become instances. Defaults are the release's."""

    length: int = 128
    """Tokens of an instance at most."""
    predictions: int = 20
    """Words that are masked in one at most."""
    masked: float = 0.15
    """Share of its tokens that are masked; 0: none, and each word is told by those before it."""
    short: float = 0.1
    """Share of documents that are cut into shorter instances, of a drawn length."""
    whole_words: bool = False
    """Whether a word is masked with all its pieces or not at all."""
    pairs: bool = True
    """Two segments, the second of them from elsewhere in half of the cases; False: one, of running text."""

    def __post_init__(self) -> None:
        if self.length < 5:
            raise UsageError(
                f"instances of {self.length} tokens have no room for two segments; give 5 or more"
            )
        if self.pairs and not self.masked:
            raise UsageError("words are told from left to right in single segments; set pairs=False")


@dataclass(frozen=True)
class Marks:
    """What is to be known of a vocabulary."""

    classify: int
    separator: int
    mask: int
    inside: Sequence[bool]  # (V,) which pieces go on with a word

    @property
    def size(self) -> int:
        return len(self.inside)


class Instance(NamedTuple):
    """One row to learn from."""

    ids: Ids
    first: int  # how many of them are of the first segment, its marks included
    elsewhere: bool  # whether the second segment is from elsewhere
    places: Ids  # where words are predicted, in order
    labels: Ids  # and which


def instances(
    documents: Documents, making: Making, marks: Marks, seed: int = 12345, dupe_factor: int = 10
) -> list[Instance]:
    """All instances of some documents, shuffled: what the release writes into its files."""
    chance = Random(seed)
    made = list(generated(documents, making, marks, chance, dupe_factor))
    return [made[i] for i in shuffled(len(made), chance)]


def shuffled(count: int, chance: Random) -> Ids:
    order = list(range(count))
    chance.shuffle(order)
    return order


def generated(
    documents: Documents, making: Making, marks: Marks, chance: Random, dupe_factor: int = 1
) -> Iterator[Instance]:
    """Those of all documents, in a drawn order, `dupe_factor` times, each time cut and masked anew."""
    order = shuffled(len(documents), chance)
    cut = _pairs if making.pairs else _runs
    for _ in range(dupe_factor):
        for number in range(len(order)):
            for first, second, elsewhere in cut(documents, order, number, making, chance):
                if making.masked:
                    yield _masked(first, second, elsewhere, making, marks, chance)
                else:
                    yield _following(first, marks)


def _pairs(
    documents: Documents, order: Sequence[int], number: int, making: Making, chance: Random
) -> Iterator[tuple[Ids, Ids, bool]]:
    """Both segments of each instance of a document. What a drawn second segment displaces comes again."""
    document = documents[order[number]]
    room = making.length - 3
    wanted = chance.randint(2, room) if chance.random() < making.short else room
    start = 0
    while start < len(document):
        end, size = start, 0
        while end < len(document) and size < wanted:
            size += len(document[end])
            end += 1
        middle = start + (chance.randint(1, end - start - 1) if end - start > 1 else 1)
        first = _joined(document, start, middle)
        elsewhere = end - start == 1 or chance.random() < 0.5
        if elsewhere:
            second = _drawn(documents, order, number, wanted - len(first), chance)
            end = middle
        else:
            second = _joined(document, middle, end)
        yield *_cut(first, second, room, chance), elsewhere
        start = end


def _joined(document: Sentences, start: int, end: int) -> Ids:
    return [i for n in range(start, end) for i in document[n]]


def _drawn(documents: Documents, order: Sequence[int], number: int, wanted: int, chance: Random) -> Ids:
    """Sentences from a drawn place of, if possible, another document."""
    other = number
    for _ in range(TRIES):
        other = chance.randint(0, len(order) - 1)
        if other != number:
            break
    document = documents[order[other]]
    found: Ids = []
    for n in range(chance.randint(0, len(document) - 1), len(document)):
        found += document[n]
        if len(found) >= wanted:
            break
    return found


def _cut(first: Ids, second: Ids, room: int, chance: Random) -> tuple[Ids, Ids]:
    """Tokens of the longer segment, else of the second, go from either end until both fit."""
    a, b = [0, len(first)], [0, len(second)]
    for _ in range(len(first) + len(second) - room):
        longer = a if a[1] - a[0] > b[1] - b[0] else b
        if chance.random() < 0.5:
            longer[0] += 1
        else:
            longer[1] -= 1
    return first[slice(*a)], second[slice(*b)]


def _runs(
    documents: Documents, order: Sequence[int], number: int, making: Making, chance: Random
) -> Iterator[tuple[Ids, Ids, bool]]:
    """One segment of running text after the other, whatever its sentences; the last may be shorter."""
    room = making.length - 2
    wanted = chance.randint(2, room) if chance.random() < making.short else room
    waiting: Ids = []
    document = documents[order[number]]
    for n in range(len(document)):
        waiting += document[n]
        while len(waiting) >= wanted:
            yield waiting[:wanted], [], False
            waiting = waiting[wanted:]
    if waiting:
        yield waiting, [], False


def _following(words: Ids, marks: Marks) -> Instance:
    """Each word is asked for at the token before it; the end of a segment, which is no sentence's, is not."""
    ids = [marks.classify, *words, marks.separator]
    return Instance(ids, len(ids), False, list(range(len(words))), words)


def _masked(
    first: Ids, second: Ids, elsewhere: bool, making: Making, marks: Marks, chance: Random
) -> Instance:
    """80 % of the chosen tokens give way to [MASK], 10 % to a token drawn from all, 10 % stay."""
    ids = [marks.classify, *first, marks.separator]
    size = len(ids)
    if making.pairs:
        ids += [*second, marks.separator]
    candidates: list[Ids] = []
    for place, i in enumerate(ids):
        if place in (0, size - 1) or (place == len(ids) - 1):
            continue
        if making.whole_words and candidates and marks.inside[i]:
            candidates[-1].append(place)
        else:
            candidates.append([place])
    chance.shuffle(candidates)
    most = min(making.predictions, max(1, round(len(ids) * making.masked)))
    read = list(ids)
    chosen: Ids = []
    for places in candidates:
        if len(chosen) == most:
            break
        if len(chosen) + len(places) > most:
            continue
        for place in places:
            if chance.random() < 0.8:
                read[place] = marks.mask
            elif chance.random() >= 0.5:
                read[place] = chance.randint(0, marks.size - 1)
            chosen.append(place)
    chosen.sort()
    return Instance(read, size, elsewhere, chosen, [ids[place] for place in chosen])
