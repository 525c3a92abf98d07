"""A vocabulary of pieces, learned from counted words: the same counts give the same vocabulary, always."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from pretune.methods.bert.wordpiece import INSIDE

Pair = tuple[str, str]


def learn_pieces(counts: Mapping[str, int], most: int, least: int = 2) -> list[str]:
    """At most `most` pieces: the characters, as they begin words and within them, then merged ones.

    Again and again the two pieces that stand side by side most often become one, as long as they do so
    `least` times; of equals the first by alphabet. (What Google learned its vocabularies with was never
    released; this is what `tokenizers` does, whose trainer gives other pieces at each call.) Where the
    characters would fill more than half the room, the rarest are left out, and words with them.
    """
    characters: Counter[str] = Counter()
    for word, n in counts.items():
        for piece in _spelled(word):
            characters[piece] += n
    common = sorted(characters, key=lambda piece: (-characters[piece], piece))[: max(1, most // 2)]
    alphabet = set(common)
    words = [(_spelled(word), n) for word, n in sorted(counts.items())]
    merging = _Merging([(pieces, n) for pieces, n in words if alphabet.issuperset(pieces)])
    found = dict.fromkeys(sorted(alphabet, key=lambda piece: (piece.startswith(INSIDE), piece)))
    while len(found) < most:
        merged = merging.merge(least)
        if merged is None:
            break
        found[merged] = None
    return list(found)


def _spelled(word: str) -> list[str]:
    return [word[0], *(INSIDE + x for x in word[1:])]


class _Merging:
    """Words as pieces, and where each pair of neighbours stands, kept up to date from merge to merge."""

    def __init__(self, words: list[tuple[list[str], int]]) -> None:
        self.words = words
        self.counts: Counter[Pair] = Counter()
        self.where: defaultdict[Pair, set[int]] = defaultdict(set)
        for i, (pieces, n) in enumerate(words):
            for pair in pairwise(pieces):
                self.counts[pair] += n
                self.where[pair].add(i)
        self.queue = [(-n, pair) for pair, n in self.counts.items()]
        heapify(self.queue)

    def merge(self, least: int) -> str | None:
        """Join the most frequent pair everywhere; the new piece, or None where no pair is frequent enough."""
        while self.queue:
            negative, pair = heappop(self.queue)
            if self.counts[pair] != -negative:
                continue  # an old count
            if -negative < least:
                return None
            joined = pair[0] + pair[1].removeprefix(INSIDE)
            changed: set[Pair] = set()
            for i in self.where.pop(pair):
                changed |= self._join(i, pair, joined)
            del self.counts[pair]
            for other in changed - {pair}:
                if self.counts[other] > 0:
                    heappush(self.queue, (-self.counts[other], other))
                else:
                    del self.counts[other]
            return joined
        return None

    def _join(self, i: int, pair: Pair, joined: str) -> set[Pair]:
        """In one word; the pairs whose counts have changed."""
        pieces, n = self.words[i]
        new: list[str] = []
        for piece in pieces:
            if new and new[-1] == pair[0] and piece == pair[1]:
                new[-1] = joined
            else:
                new.append(piece)
        before, after = Counter(pairwise(pieces)), Counter(pairwise(new))
        self.words[i] = new, n
        for other in before.keys() | after.keys():
            self.counts[other] += n * (after[other] - before[other])
            if other in after:
                self.where[other].add(i)
            elif other in self.where:
                self.where[other].discard(i)
        return {other for other in before.keys() | after.keys() if before[other] != after[other]}
