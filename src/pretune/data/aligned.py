"""Aligned: a text under rewriting that remembers which characters of its source each character came from."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pretune.data.samples import Span

# What takes the place of a match: texts, each with the characters of the current text that it stands for.
Pieces = Iterable[tuple[str, int, int]]
Rewrite = Callable[[re.Match[str]], Pieces]


@dataclass(frozen=True)
class Aligned:
    """A text; its character i stands for characters starts[i] to ends[i] of the source.

    Both arrays never decrease, so a run of characters stands for one span.
    """

    text: str
    starts: array[int]
    ends: array[int]

    @classmethod
    def of(cls, text: str) -> Aligned:
        """The text as it came: every character stands for itself."""
        return cls(text, array("i", range(len(text))), array("i", range(1, len(text) + 1)))

    def span(self, start: int, end: int) -> Span:
        """The source characters of text[start:end]; an empty one where start == end."""
        if start < end:
            return Span(self.starts[start], self.ends[end - 1])
        place = self.starts[start] if start < len(self.text) else (self.ends[-1] if self.text else 0)
        return Span(place, place)

    def spans(self, firsts: Iterable[int], lasts: Iterable[int]) -> list[Span]:
        """The source characters of many stretches, each given by its first and its last character."""
        return list(map(Span, map(self.starts.__getitem__, firsts), map(self.ends.__getitem__, lasts)))

    def sub(self, pattern: re.Pattern[str], rewrite: Rewrite) -> Aligned:
        """Every match replaced by its pieces. A piece that copies its characters keeps them one by one;
        in any other piece each character stands for the whole of them.
        """
        texts: list[str] = []
        starts, ends = array("i"), array("i")
        at = 0
        for match in pattern.finditer(self.text):
            for text, start, end in ((self.text[at : match.start()], at, match.start()), *rewrite(match)):
                texts.append(text)
                if text == self.text[start:end]:
                    starts += self.starts[start:end]
                    ends += self.ends[start:end]
                else:
                    span = self.span(start, end)
                    starts += array("i", [span.start]) * len(text)
                    ends += array("i", [span.end]) * len(text)
            at = match.end()
        if not texts:
            return self
        return Aligned("".join(texts) + self.text[at:], starts + self.starts[at:], ends + self.ends[at:])

    def replace(self, old: str, new: str) -> Aligned:
        """As str.replace."""
        if old not in self.text:
            return self
        return self.sub(re.compile(re.escape(old)), lambda match: [(new, match.start(), match.end())])

    def strip(self) -> Aligned:
        """As str.strip."""
        start = len(self.text) - len(self.text.lstrip())
        end = max(start, len(self.text.rstrip()))
        if end - start == len(self.text):
            return self
        return Aligned(self.text[start:end], self.starts[start:end], self.ends[start:end])


def rewritten(text: str, pattern: re.Pattern[str], rewrite: Rewrite) -> str:
    """The text of Aligned.sub, without the alignment."""
    return pattern.sub(lambda match: "".join(piece for piece, _, _ in rewrite(match)), text)
