"""Long contexts before a question: they give way, the question and the choice are read whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pretune.data.rows import Codec, Row
from pretune.data.samples import Part, Span

Cut = Literal["end", "start", "codec"]
NEAR = 20  # characters in which the border of a word is looked for


@dataclass(frozen=True)
class Asked:
    """A question, perhaps after a context, and one choice."""

    question: Part
    choice: Part
    start: int = 0  # where the question begins in its part; before it is the context

    def without(self, kept: int, cut: Cut) -> Span:
        """What is left out of the first part where `kept` characters of the context stay."""
        text = self.question.text
        if cut == "start":
            lost = self.start - kept
            near = max(0, lost - 1)  # where a space says that a word begins here
            border = re.search(r"\s+", text[near : min(lost + NEAR, self.start)]) if kept else None
            return Span(0, near + border.end() if border else lost)
        end = len(text[: self.start].rstrip())  # of the context; what is between it and the question stays
        kept = min(kept, end)
        border = re.search(r"\s\S*$", text[max(0, kept - NEAR) : kept + 1]) if 0 < kept < end else None
        kept = max(0, kept - NEAR) + border.start() if border else kept
        return Span(kept, end if kept else self.start)

    def parts(self, gone: Span) -> tuple[Part, Part]:
        text = self.question.text
        return Part(text[: gone.start] + text[gone.end :]), self.choice


def encode_whole(codec: Codec, asked: Sequence[Asked], cut: Cut) -> list[list[Row]]:
    """The rows of each, with as much of the context as the codec has room for.

    A context loses characters at one end until the question is read as far as it is without any. Characters
    of the rows are those of the whole part. GPT's release cuts every text at its end, which would lose the
    question; it has no data set with contexts.
    """
    found = codec.encode([(one.question, one.choice) for one in asked])
    if cut == "codec":
        return found
    kept = {i: one.start for i, one in enumerate(asked) if one.start and _end(found[i]) < _last(one)}
    bare = codec.encode([asked[i].parts(Span(0, asked[i].start)) for i in kept])
    goals = {i: _end(rows) + asked[i].start for i, rows in zip(kept, bare, strict=True)}
    while short := [i for i in kept if kept[i] and _end(found[i]) < goals[i]]:
        kept |= {i: max(0, kept[i] - (goals[i] - _end(found[i]))) for i in short}
        gone = [asked[i].without(kept[i], cut) for i in short]
        read = codec.encode([asked[i].parts(span) for i, span in zip(short, gone, strict=True)])
        for i, span, rows in zip(short, gone, read, strict=True):
            found[i] = [_moved(row, span) for row in rows]
    return found


def _end(rows: Sequence[Row]) -> int:
    """The last character of the first part that a token covers."""
    return max(
        (span.end for row in rows for part, span in zip(row.part, row.chars, strict=True) if part == 0),
        default=0,
    )


def _last(one: Asked) -> int:
    return len(one.question.text.rstrip())


def _moved(row: Row, gone: Span) -> Row:
    """With the characters of the part before `gone` was left out of it."""
    lost = gone.end - gone.start

    def moved(span: Span) -> Span:
        start = span.start if span.start < gone.start else span.start + lost
        return Span(start, max(start, span.end if span.end <= gone.start else span.end + lost))

    chars = [moved(span) if part == 0 else span for part, span in zip(row.part, row.chars, strict=True)]
    return replace(row, chars=chars)
