"""Nearest neighbours of a word in its context, in a corpus: table 4 of Peters et al. (2018)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import numpy as np

from pretune.errors import UsageError
from pretune.runs.embedder import Array, Embedder
from pretune.runs.readings import Sentence


@dataclass(frozen=True, order=True)
class Neighbour:
    """A word of the corpus, where it stands, and how like it is to the word that was asked about."""

    similarity: float  # cosine
    word: str
    sentence: str
    position: int  # among the sentence's words, from 0


def neighbours(
    embedder: Embedder,
    corpus: Iterable[Sentence],
    word: str,
    sentence: Sentence,
    position: int | None = None,
    top: int = 5,
    layer: int = -1,
    same_word: bool = False,
    batch_size: int = 32,
) -> list[Neighbour]:
    """The `top` words of `corpus` that are used most like `word` in `sentence`, nearest first.

    `position` says which of the sentence's words it is, where it occurs in it more than once; the first
    otherwise. `layer` 0 is the one without context, -1 the top. `same_word` looks at occurrences of the
    word itself alone, which shows its senses. The corpus is read once, and only the best are kept; the
    sentence itself is left out of it.
    """
    if top < 1:
        raise UsageError(f"top is {top}; give 1 or more")
    (asked,) = embedder.stream([sentence], "all")
    place = _place(asked.words, word, position)
    count = len(asked.vectors)
    if not -count <= layer < count:
        raise UsageError(f"layer is {layer}; this model has layers 0 to {count - 1}")
    query = _unit(asked.vectors[layer][place : place + 1])[0]  # (D,)
    texts, read = tee(corpus)
    best: list[tuple[float, int, Neighbour]] = []
    order = 0
    for text, found in zip(texts, embedder.stream(read, "all", batch_size), strict=True):
        if found.words == asked.words:
            continue
        alike = _unit(found.vectors[layer]) @ query  # (T,)
        for t in _candidates(alike, found.words, word if same_word else None, top):
            order -= 1  # of equals the one that came first
            said = text.strip() if isinstance(text, str) else " ".join(text)
            entry = (float(alike[t]), order, Neighbour(float(alike[t]), found.words[t], said, int(t)))
            if len(best) < top:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
    return [entry[2] for entry in sorted(best, reverse=True)]


def _place(words: list[str], word: str, position: int | None) -> int:
    if position is None:
        if word not in words:
            raise UsageError(f"{word!r} is no word of the sentence, which are {' '.join(map(repr, words))}")
        return words.index(word)
    if not 0 <= position < len(words) or words[position] != word:
        there = repr(words[position]) if 0 <= position < len(words) else "nothing"
        raise UsageError(f"position {position} of the sentence has {there}, not {word!r}; count from 0")
    return position


def _candidates(alike: Array, words: list[str], word: str | None, top: int) -> Iterator[int]:
    """The places of a sentence that may be among the best, the best first."""
    order = np.argsort(-alike, kind="stable")
    chosen = (int(t) for t in order if word is None or words[t] == word)
    return (t for t, _ in zip(chosen, range(top), strict=False))


def _unit(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays one."""
    found: Array = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return found
