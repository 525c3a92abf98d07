"""Readings: sentences as an encoder reads them, and where the vectors of their words are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretune.data.rows import NOTHING, Codec, Row
from pretune.data.samples import Part, Span
from pretune.data.segment import segmenter
from pretune.errors import UsageError
from pretune.methods.elmo import ElmoCodec

Sentence = str | Sequence[str]  # a text, or its words


@dataclass(frozen=True)
class Reading:
    """A sentence as the encoder reads it, and where its vectors are."""

    row: Row
    kept: slice | list[int]  # the row's tokens without special ones, in the order of the text
    words: list[str]  # what each vector stands for
    pairs: tuple[list[int], list[int]] | None = None  # where words are aligned: kept token, a word it is in

    @classmethod
    def of(cls, codec: Codec, sentence: Sentence, align: bool = False, place: str = "a sentence") -> Reading:
        """`align` asks for the words of a text where the codec has other tokens; given words are kept to
        always, or refused. `place` is for that message.
        """
        if isinstance(codec, ElmoCodec) and codec.spell is not None:  # its tokens are the words themselves
            words = codec.words(sentence) if isinstance(sentence, str) else list(sentence)
            spelled = words or [""]
            zeros = [0] * len(spelled)
            row = Row(zeros, zeros, zeros, [NOTHING] * len(zeros), spelled)
            return cls(row, slice(0, len(words)), words)
        part = Part(sentence) if isinstance(sentence, str) else part_of(sentence)
        ((row,),) = codec.encode([(part,)])
        kept = [t for t, of in enumerate(row.part) if of == 0]
        if len(kept) > 1 and row.chars[kept[0]].start > row.chars[kept[-1]].start:
            kept.reverse()  # a backward model reads from the right
        spans = [row.chars[t] for t in kept]
        wanted = spans
        if not isinstance(sentence, str):
            wanted = list(part.words)
        elif align:
            config: Any = codec.config  # type: ignore[attr-defined]
            named = None if config.segmenter == "pieces" else config.segmenter  # which are no words
            wanted = segmenter(config.language, named)(part.text)
        words = [part.text[start:end] for start, end in wanted]
        if spans == wanted:
            return cls(row, kept, words)
        if not align:
            raise UsageError(
                f"{place} has {len(wanted)} words, which are {len(spans)} tokens to this codec; "
                'align words (align="words", --align words) to have one vector a word'
            )
        return cls(row, kept, words, _pairs(spans, wanted))

    def of_words(self, h: Tensor) -> Tensor:
        """A layer of the row (T', D) -> (T, D), a vector a word; zeros for a word that no token covers."""
        h = h[self.kept]
        if self.pairs is None:
            return h
        tokens, words = (torch.tensor(side, dtype=torch.long) for side in self.pairs)
        sums = h.new_zeros(len(self.words), h.shape[1]).index_add_(0, words, h[tokens])
        counts = torch.bincount(words, minlength=len(self.words)).clamp(min=1)
        return sums / counts[:, None]


def part_of(words: Sequence[str]) -> Part:
    """Words as a text with a space between each two."""
    spans, at = [], 0
    for word in words:
        spans.append(Span(at, at + len(word)))
        at += len(word) + 1
    return Part(" ".join(words), tuple(spans))


def _pairs(tokens: Sequence[Span], words: Sequence[Span]) -> tuple[list[int], list[int]]:
    """Each token with each word that it shares a character with."""
    ends = [word.end for word in words]
    found: tuple[list[int], list[int]] = ([], [])
    for t, token in enumerate(tokens):
        w = bisect_right(ends, token.start)
        while w < len(words) and words[w].start < token.end:
            found[0].append(t)
            found[1].append(w)
            w += 1
    return found
