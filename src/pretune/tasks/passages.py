"""Questions and passages as rows: whole where an encoder reads any length, else in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pretune.data.rows import Codec, Limited, Row
from pretune.data.samples import Sample
from pretune.errors import UserError

QUESTION, PASSAGE = 0, 1  # parts of a sample


@dataclass(frozen=True)
class Windows:
    """How long passages are cut, as BERT's run_squad.py does. All counts are tokens."""

    length: int = 384  # of a row, with question and marks
    stride: int = 128  # from the beginning of a window to that of the next
    question: int = 64  # that are read of a question

    def step(self, first: int) -> int:
        """The stride where the first window holds so many tokens: at most half of it, so that all overlap."""
        return min(self.stride, max(1, first // 2))

    def rows(self, codec: Codec, samples: Sequence[Sample], apart: bool) -> list[list[Row]]:
        """Each sample's windows, every token of its passage in one or more.

        A row is question and passage; or, where they are read `apart`, the first row is the question alone
        and the others are the passage.
        """
        length = None
        if isinstance(codec, Limited) and codec.config.context is not None:
            length = min(self.length, codec.config.context)
            codec = codec.unlimited()
        if not apart:
            read = codec.encode([sample.parts for sample in samples])
            return [self._cut(row, length) for (row,) in read]
        read = codec.encode([(part,) for sample in samples for part in sample.parts])
        found = []
        for (asked,), (passage,) in zip(read[::2], read[1::2], strict=True):
            part = [PASSAGE if number >= 0 else number for number in passage.part]
            question = _without(asked, QUESTION, self._asked(asked, length)) if length else asked
            found.append([question, *self._cut(replace(passage, part=part), length)])
        return found

    def _asked(self, row: Row, length: int) -> int:
        """Most tokens of a question, of which a row so long has at most half."""
        marks = sum(part < 0 for part in row.part)
        return min(self.question, max(1, (length - marks) // 2))

    def _cut(self, row: Row, length: int | None) -> list[Row]:
        if length is None or (len(row) <= length and row.part.count(QUESTION) <= self.question):
            return [row]
        row = _without(row, QUESTION, self._asked(row, length))
        begin, end = stretch(row)
        room = length - (len(row) - (end - begin))
        if room < 1:
            raise UserError(f"task.max_length is {length}: no room for a passage; give more")
        if end - begin <= room:
            return [row]
        step, found = self.step(room), []
        for first in range(begin, end, step):
            last = min(first + room, end)
            found.append(_picked(row, [*range(begin), *range(first, last), *range(end, len(row))]))
            if last == end:
                return found
        return found


def widest_context(counts: Sequence[int], step: int) -> list[range]:
    """Of windows with so many tokens, `step` apart: the tokens of each that no other sees with more around.

    More is min(left, right) + 0.01 · length of the window, the first of equals, as in run_squad.py; the
    tokens of one window that win are neighbours.
    """
    best: dict[int, tuple[float, int]] = {}
    for w, count in enumerate(counts):
        for t in range(count):
            context = min(t, count - 1 - t) + 0.01 * count
            if w * step + t not in best or context > best[w * step + t][0]:
                best[w * step + t] = context, w
    own: list[list[int]] = [[] for _ in counts]
    for token, (_, w) in best.items():
        own[w].append(token - w * step)
    return [range(min(some), max(some) + 1) if some else range(0) for some in own]


def candidates(row: Row) -> list[int]:
    """The tokens of a row that cover characters of the passage, in the order of the text."""
    own = [t for t, part in enumerate(row.part) if part == PASSAGE and row.chars[t].end > row.chars[t].start]
    return sorted(own, key=lambda t: (row.chars[t], t))


def stretch(row: Row) -> tuple[int, int]:
    """Where the passage begins and ends in a row."""
    own = [t for t, part in enumerate(row.part) if part == PASSAGE]
    return (own[0], own[-1] + 1) if own else (len(row), len(row))


def _without(row: Row, part: int, most: int) -> Row:
    """A row with only the first tokens of a part."""
    own = [t for t, number in enumerate(row.part) if number == part][most:]
    gone = set(own)
    return _picked(row, [t for t in range(len(row)) if t not in gone]) if gone else row


def _picked(row: Row, kept: Sequence[int]) -> Row:
    return Row(
        [row.ids[t] for t in kept],
        [row.segments[t] for t in kept],
        [row.part[t] for t in kept],
        [row.chars[t] for t in kept],
        None if row.spelled is None else [row.spelled[t] for t in kept],
    )
