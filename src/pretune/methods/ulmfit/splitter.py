"""Splitter: text -> tokens by a profile's rules and a segmenter, with or without their characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from pretune.data.samples import Span
from pretune.data.segment import Segmenter
from pretune.methods.ulmfit.pieces import PieceSegmenter
from pretune.methods.ulmfit.rules import REPEAT, REPEAT_WORD, Profile

# Runs between spaces, and spaces that are tokens, as in spaCy: all but a single blank.
PIECE: Final = re.compile(r"\S+|\s{2,}|[^\S ]")
RUN: Final = re.compile(r"\S+")
AFTER: Final = {REPEAT: ("[0-9]+", "."), REPEAT_WORD: ("[0-9]+",)}
KEPT: Final = 2**17  # distinct stretches whose tokens are remembered,
MOST_KEPT: Final = (40, 8)  # if it has at most so many characters and tokens


class Read(NamedTuple):
    """The tokens of a stretch of text, and the characters of the stretch that each covers."""

    tokens: tuple[str, ...]
    places: tuple[tuple[int, int], ...]


class Splitter:
    """One way from a text to its tokens, whether their characters are asked for (`aligned`) or not."""

    def __init__(self, rules: Profile, segmenter: Segmenter | PieceSegmenter) -> None:
        self.rules = rules
        self.segmenter = segmenter
        self._in_pieces = isinstance(segmenter, PieceSegmenter)
        self._marks_words = rules.marks_words and not self._in_pieces
        self._kept: dict[str, Read] = {}

    def tokens(self, text: str) -> list[str]:
        text = self.rules.cleaned(text)
        if not self.segmenter.by_run:
            return list(self._whole(text).tokens)
        tokens: list[str] = []
        kept = self._kept
        for stretch in PIECE.findall(text):
            found = kept.get(stretch)
            tokens += found[0] if found else self._stretch(stretch).tokens
        return tokens

    def aligned(self, text: str) -> tuple[list[str], list[Span]]:
        """The same tokens, and the characters of `text` that each stands for.

        xxup and xxmaj stand for the token after them; xxrep, xxwrep, their number for all that is repeated.
        """
        cleaned = self.rules.cleaned_aligned(text)
        tokens: list[str] = []
        firsts: list[int] = []
        lasts: list[int] = []
        for at, read in self._reads(cleaned.text):
            tokens += read.tokens
            for start, end in read.places:
                firsts.append(at + start)
                lasts.append(at + end - 1)
        return tokens, cleaned.spans(firsts, lasts)

    def _reads(self, text: str) -> Iterator[tuple[int, Read]]:
        if not self.segmenter.by_run:
            yield 0, self._whole(text)
            return
        for match in PIECE.finditer(text):
            yield match.start(), self._stretch(match.group())

    def _stretch(self, text: str) -> Read:
        found = self._kept.get(text)
        if found is None:
            found = self._space(text) if text[0].isspace() else self._run(text)
            if len(text) <= MOST_KEPT[0] and len(found.tokens) <= MOST_KEPT[1]:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[text] = found
        return found

    def _space(self, text: str) -> Read:
        if self._in_pieces:
            return Read((), ())
        skipped = int(len(text) > 1 and text[0] == " ")
        return Read((self._barred(text[skipped:]),), ((skipped, len(text)),))

    def _run(self, text: str) -> Read:
        if text in self.rules.whole:
            return Read((text,), ((0, len(text)),))
        read, origin = (text, range(len(text))) if self._marks_words else self._lowered(text)
        tokens: list[str] = []
        places: list[tuple[int, int]] = []
        mark = None if self._marks_words else self.rules.marker(text)
        for word, start, end in self._words(read):
            place = (origin[start], origin[end - 1] + 1)
            if self._marks_words:
                mark = self.rules.marker(word)
                word = self.rules.lower(word)
            if mark:
                tokens.append(mark)
                places.append(place)
                mark = None
            tokens.append(word)
            places.append(place)
        return Read(tuple(tokens), tuple(places))

    def _words(self, text: str) -> list[tuple[str, int, int]]:
        if isinstance(self.segmenter, PieceSegmenter):
            return self.segmenter.of_run(text)
        return [(text[start:end], start, end) for start, end in self.segmenter(text)]

    def _whole(self, text: str) -> Read:
        """For segmenters that look across spaces: they see whole stretches between special tokens."""
        read, origin = (text, range(len(text))) if self._marks_words else self._lowered(text)
        runs = list(zip(RUN.finditer(text), RUN.finditer(read), strict=True))
        marks: dict[int, str] = {}  # where a marked run starts
        if not self._marks_words:
            marks = {low.start(): mark for run, low in runs if (mark := self.rules.marker(run.group()))}
        tokens: list[str] = []
        places: list[tuple[int, int]] = []

        def add(token: str, start: int, end: int) -> None:
            tokens.append(self._barred(token))
            places.append((origin[start], origin[end - 1] + 1))

        def stretch(first: int, last: int) -> None:
            at = first
            for start, end in [*self._spans(read[first:last]), Span(last - first, last - first)]:
                start, end = first + start, first + end
                for space in PIECE.finditer(read, at, start):
                    if space.group()[0].isspace():
                        found = self._space(space.group())
                        add(found.tokens[0], space.start() + found.places[0][0], space.end())
                if start < end:
                    word = read[start:end]
                    mark = next((marks[place] for place in range(start, end) if place in marks), None)
                    if self._marks_words:
                        mark, word = self.rules.marker(word), self.rules.lower(word)
                    if mark:
                        add(mark, start, end)
                    add(word, start, end)
                at = end

        at = 0
        protected: list[str] = []  # what must follow so that it is a token too, as the number in `xxrep 3 !`
        for run, low in runs:
            follows = bool(protected) and re.fullmatch(protected.pop(0), run.group()) is not None
            if run.group() in self.rules.whole or follows:
                stretch(at, low.start())
                add(self.rules.lower(low.group()), *low.span())
                at = low.end()
            if not follows:
                protected = list(AFTER.get(run.group(), ()))
        stretch(at, len(read))
        return Read(tuple(tokens), tuple(places))

    def _spans(self, text: str) -> list[Span]:
        assert not isinstance(self.segmenter, PieceSegmenter)  # which reads by runs
        return self.segmenter(text)

    def _barred(self, token: str) -> str:
        return token.replace(" ", "▁") if self.rules.bars else token

    def _lowered(self, text: str) -> tuple[str, Sequence[int]]:
        """Lower case, and which character of `text` each comes from (one capital, İ, becomes two)."""
        lowered = self.rules.lower(text)
        if len(lowered) == len(text):
            return lowered, range(len(text))
        return lowered, [place for place, character in enumerate(text) for _ in character.lower()]
