"""SpellingModel: what it costs to spell a word that a vocabulary lacks, told from the words that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import log
from typing import Final

ORDER: Final = 3
OUTCOMES: Final = 0x110000 + 1  # all code points of Unicode, and the end of a word
BEGINNING, END = "\0", "\x01"


class SpellingModel:
    """A trigram model of characters, each word of a vocabulary counted once.

    q(c | h) = (n(h c) + t(h) q(c | h')) / (n(h) + t(h)), where t(h) counts the different characters that
    follow h, and h' is h without its first (Witten & Bell 1991, interpolated); below single
    characters all code points are alike. So every string has a probability. What falls to words of the
    vocabulary is not taken back, which makes others dearer than they need be, never cheaper.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.follow: dict[str, Counter[str]] = {}
        for word in words:
            if word:
                text = BEGINNING * (ORDER - 1) + word + END
                for at in range(ORDER - 1, len(text)):
                    for reach in range(ORDER):
                        self.follow.setdefault(text[at - reach : at], Counter())[text[at]] += 1
        self.totals = {history: counts.total() for history, counts in self.follow.items()}
        self.nats = lru_cache(2**16)(self._nats)

    def probability(self, character: str, history: str) -> float:
        """Of a character, or the END, after the last characters of a word; BEGINNING stands before it."""
        shorter = self.probability(character, history[1:]) if history else 1 / OUTCOMES
        counts = self.follow.get(history)
        if counts is None:
            return shorter
        return (counts[character] + len(counts) * shorter) / (self.totals[history] + len(counts))

    def _nats(self, word: str) -> float:
        """-log q of a word and its end."""
        text = BEGINNING * (ORDER - 1) + word + END
        return -sum(
            log(self.probability(text[at], text[at - ORDER + 1 : at])) for at in range(ORDER - 1, len(text))
        )
