"""Answers that stand in a passage: their words, and where, also if a file counts or spaces otherwise."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from pretune.data.samples import Part, Sample, Span

NEAR: Final = 64  # characters within which an answer that does not stand where a file says is looked for


class SpanAnswer(NamedTuple):
    """One right answer; golds are tuples of them, an empty one where the passage has no answer."""

    text: str
    span: Span | None = None  # characters of the passage; None where the text is not found there


def placed(passage: str, text: str, start: int | None = None) -> SpanAnswer:
    """The answer where it stands: at `start`, else nearest to it; without `start` where it comes first.

    Text that a data set has written with other white space than its passage, or other signs between the
    letters, is taken as the passage has it.
    """
    if start is not None and start >= 0 and passage.startswith(text, start):
        return SpanAnswer(text, Span(start, start + len(text)))
    at = _nearest(passage, text, start)
    if at is not None:
        return SpanAnswer(text, Span(at, at + len(text)))
    for counts in (lambda letter: not letter.isspace(), str.isalnum):
        places = [i for i, letter in enumerate(passage) if counts(letter)]
        bare, wanted = "".join(passage[i] for i in places), "".join(filter(counts, text))
        at = _nearest(bare, wanted, None if start is None else bisect_left(places, start))
        if at is not None:
            span = Span(places[at], places[at + len(wanted) - 1] + 1)
            return SpanAnswer(passage[span.start : span.end], span)
    return SpanAnswer(text)


def passage_of(sample: Sample) -> str:
    """What its question is about: questions with the same passage stay together in a split."""
    return sample.parts[1].text


def _nearest(passage: str, text: str, start: int | None) -> int | None:
    if not text:
        return None
    if start is None:
        at = passage.find(text)
        return None if at < 0 else at
    before = passage.rfind(text, max(0, start - NEAR), max(0, start + len(text)))
    behind = passage.find(text, max(0, start), start + NEAR + len(text))
    found = [at for at in (before, behind) if at >= 0]
    return min(found, key=lambda at: abs(at - start)) if found else None


def question_sample(
    question: str, passage: str, answers: Sequence[str | tuple[str, int]] | None = None, key: str = ""
) -> Sample:
    """One question; answers are texts, or texts with the characters that they start at; () for none.

    sample = question_sample("Where is she?", "She lives in Rome.", ["Rome"])
    """
    gold = None
    if answers is not None:
        given = [(x, None) if isinstance(x, str) else x for x in answers]
        gold = tuple(placed(passage, text, start) for text, start in given)
    return Sample(key, (Part(question), Part(passage)), gold)
