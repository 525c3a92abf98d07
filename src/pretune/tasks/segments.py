"""Long documents as rows: whole where an encoder reads any length, else cut between sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

from pretune.data.rows import Codec, Limited, Row
from pretune.data.samples import Part, Span

Range = tuple[int, int]  # of words, end exclusive


@runtime_checkable
class BySentence(Protocol):
    """A codec whose encoder was pretrained on sentences, each by itself."""

    def sentences(self, document: str) -> Iterator[str]: ...


def longest(codec: Codec, asked: int | None) -> int | None:
    """Most tokens of a row: those asked for, as far as the codec has room; None: any number."""
    room = codec.config.context if isinstance(codec, Limited) else None
    return min((x for x in (asked, room) if x is not None), default=None)


class Size(NamedTuple):
    """Of a row."""

    tokens: int
    marks: int  # of them, those that stand for no text


def measuring(codec: Codec) -> Codec:
    """What `segments` counts tokens by: the codec without its limit. Made once, for all documents."""
    return codec.unlimited() if isinstance(codec, Limited) else codec


def segments(measure: Codec, part: Part, sentences: Sequence[Range], most: int | None) -> list[Range]:
    """Neighbouring sentences together, as many as fit into `most` tokens; one that is longer, in halves.

    `measure` counts them, without a limit of its own. What is joined is measured once more: white space
    between sentences may have tokens of its own.
    """
    if most is None:
        return [(sentences[0][0], sentences[-1][1])]
    joined = _joined(_fitting(measure, part, sentences, most), most)
    return [one for one, _ in _fitting(measure, part, joined, most)]


def _joined(sizes: Sequence[tuple[Range, Size]], most: int) -> list[Range]:
    """Neighbours together whose own tokens, and marks once, are `most` at most."""
    found: list[Range] = []
    left = 0
    for (start, end), size in sizes:
        own = size.tokens - size.marks
        if found and own <= left:
            found[-1] = found[-1][0], end
            left -= own
        else:
            found.append((start, end))
            left = most - size.tokens
    return found


def _fitting(codec: Codec, part: Part, ranges: Sequence[Range], most: int) -> list[tuple[Range, Size]]:
    """Ranges and their sizes; one with too many tokens in halves, down to single words."""
    read = codec.encode([(_piece(part, *found)[0],) for found in ranges])
    found: list[tuple[Range, Size]] = []
    for (start, end), rows in zip(ranges, read, strict=True):
        row = max(rows, key=len)
        if len(row) <= most or end - start == 1:
            found.append(((start, end), Size(len(row), sum(place < 0 for place in row.part))))
        else:
            middle = (start + end) // 2
            found += _fitting(codec, part, [(start, middle), (middle, end)], most)
    return found


def encoded(codec: Codec, part: Part, ranges: Sequence[Range]) -> list[Row]:
    """The rows of each range of the part's words, with characters of the whole part."""
    pieces = [_piece(part, *found) for found in ranges]
    read = codec.encode([(piece,) for piece, _ in pieces])
    return [_moved(row, start) for rows, (_, start) in zip(read, pieces, strict=True) for row in rows]


def _piece(part: Part, start: int, end: int) -> tuple[Part, int]:
    """Some words of a part as a part of its own, and the character where it begins."""
    words = part.words[start:end]
    if not words:
        return part, 0
    first, last = words[0].start, words[-1].end
    return Part(part.text[first:last], tuple(Span(a - first, b - first) for a, b in words)), first


def _moved(row: Row, by: int) -> Row:
    if not by:
        return row
    spans = zip(row.part, row.chars, strict=True)
    return replace(row, chars=[Span(a + by, b + by) if part >= 0 else Span(a, b) for part, (a, b) in spans])
