"""Byte-pair encoding as GPT has it: the last character of a word carries `</w>`; merges learned in order."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from pretune.data.vocab import Vocab
from pretune.errors import UserError

END: Final = "</w>"
UNKNOWN: Final = "<unk>"
LINE_BREAK: Final = "\n" + END  # what the release made of a line break; no merge gives it

KEPT: Final = 2**17  # distinct words whose pieces are remembered,
LONGEST_KEPT: Final = 40  # if no longer than this

Pair = tuple[str, str]


class BPE:
    """A word -> its pieces: again and again the pair that was merged first in learning is merged.

    Raises UserError where vocabulary and merges do not belong together.
    """

    def __init__(self, vocab: Vocab, merges: Sequence[Pair]) -> None:
        from tokenizers import models

        check(vocab, merges)
        self.vocab, self.merges = vocab, tuple(merges)
        self.unknown_id = vocab.ids[UNKNOWN]
        self.lengths = [len(piece.removesuffix(END)) for piece in vocab.words]  # in characters
        self.lengths[self.unknown_id] = 1  # for each character that is in no piece
        self._kept: dict[str, tuple[int, ...]] = {}
        self._model: Any = models.BPE(
            vocab=dict(vocab.ids), merges=list(self.merges), end_of_word_suffix=END, unk_token=UNKNOWN
        )

    def ids(self, word: str) -> tuple[int, ...]:
        """The pieces of a word, which stand for all of it from left to right."""
        found = self._kept.get(word)
        if found is None:
            found = tuple(piece.id for piece in self._model.tokenize(word))
            if len(word) <= LONGEST_KEPT:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[word] = found
        return found


def check(vocab: Vocab, merges: Sequence[Pair]) -> None:
    """That no piece stands twice, and that every merge makes a piece of two others, each once."""
    if UNKNOWN not in vocab:
        raise UserError(f"the vocabulary lacks {UNKNOWN}, which stands for characters it does not know")
    if len(vocab.ids) != len(vocab.words):
        twice = next(piece for piece, count in Counter(vocab.words).items() if count > 1)
        raise UserError(f"the vocabulary has {twice!r} twice; every piece needs one id")
    made: dict[str, int] = {}
    for number, (left, right) in enumerate(merges, 1):
        for piece in (left, right, left + right):
            if piece not in vocab:
                raise UserError(
                    f"merge {number} is {left!r} with {right!r}, but {piece!r} is not in the vocabulary; "
                    "are the two files of one model?"
                )
        if left + right in made:
            raise UserError(
                f"merges {made[left + right]} and {number} both make {left + right!r}; merges give each "
                "piece once"
            )
        made[left + right] = number


def learned(counts: Mapping[str, int], merges: int, least: int) -> tuple[list[str], list[Pair]]:
    """(vocabulary, merges) of counted words, in the order of the published files.

    `<unk>`; the characters by falling count; the same with `</w>`; what each merge makes; the line break.
    Characters, and pairs to be merged, that occur fewer than `least` times are left out. The same counts
    give the same result: equal pairs are merged in the order of their spelling.
    """
    seen: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            seen[character] += count
    frequent = sorted((-count, character) for character, count in seen.items() if count >= least)
    characters = [character for _, character in frequent]
    ends = [character + END for character in characters]
    pairs = _Merging(counts, characters).merged(merges, least)
    made = [left + right for left, right in pairs]
    return [UNKNOWN, *characters, *ends, *made, LINE_BREAK], pairs


class _Merging:
    """Words under merging: how often each pair of neighbours occurs, and in which words."""

    def __init__(self, counts: Mapping[str, int], characters: Iterable[str]) -> None:
        self.names = list(characters)  # by number
        size = len(self.names)
        number = {character: n for n, character in enumerate(self.names)}
        self.names += [character + END for character in self.names]
        self.taken = set(self.names)
        self.words: list[list[int]] = []
        self.counts: list[int] = []
        for word, count in sorted(counts.items()):
            symbols = [number.get(character, -1) for character in word]
            if len(symbols) > 1:
                symbols[-1] += size if symbols[-1] >= 0 else 0
                self.words.append(symbols)
                self.counts.append(count)
        self.pairs: dict[tuple[int, int], int] = defaultdict(int)
        self.where: dict[tuple[int, int], set[int]] = defaultdict(set)
        for place, (symbols, count) in enumerate(zip(self.words, self.counts, strict=True)):
            for pair in pairwise(symbols):
                if pair[0] >= 0 and pair[1] >= 0:
                    self.pairs[pair] += count
                    self.where[pair].add(place)

    def merged(self, most: int, least: int) -> list[Pair]:
        names, pairs = self.names, self.pairs
        heap = [(-n, names[a], names[b], a, b) for (a, b), n in pairs.items() if n >= least]
        heapq.heapify(heap)
        found: list[Pair] = []
        while heap and len(found) < most:
            count, left, right, a, b = heapq.heappop(heap)
            now = pairs.get((a, b), 0)
            if now != -count:  # it has lost some since it was put here
                if now >= least:
                    heapq.heappush(heap, (-now, left, right, a, b))
                continue
            if left + right in self.taken or END in left + right.removesuffix(END):
                continue  # spelled like a piece that means something else
            self.taken.add(left + right)
            found.append((left, right))
            names.append(left + right)
            for pair in self._merge(a, b, len(names) - 1):
                if pairs[pair] >= least:
                    heapq.heappush(heap, (-pairs[pair], names[pair[0]], names[pair[1]], *pair))
        return found

    def _merge(self, a: int, b: int, new: int) -> set[tuple[int, int]]:
        """Put `new` for every `a b`; returns the pairs that there are more of now."""
        pairs, where = self.pairs, self.where
        grown: set[tuple[int, int]] = set()
        for place in where.pop((a, b)):
            symbols, count = self.words[place], self.counts[place]
            kept: list[int] = []
            at, last = 0, len(symbols) - 1
            while at <= last:
                if at == last or symbols[at] != a or symbols[at + 1] != b:
                    kept.append(symbols[at])
                    at += 1
                    continue
                if kept and kept[-1] >= 0:
                    pairs[kept[-1], a] -= count
                    pair = (kept[-1], new)
                    pairs[pair] += count
                    where[pair].add(place)
                    grown.add(pair)
                at += 2
                kept.append(new)
                if at <= last and symbols[at] >= 0:
                    pairs[b, symbols[at]] -= count
                    pair = (new, symbols[at])
                    pairs[pair] += count
                    where[pair].add(place)
                    grown.add(pair)
            self.words[place] = kept
        del pairs[a, b]
        return grown
