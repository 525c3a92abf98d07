"""Answers that stand in a passage: their words, and where, also if a file counts or spaces otherwise."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pretune.data.conll import UNSPACED
from pretune.data.samples import Part, Sample, Span

NEAR: Final = 64  # characters within which an answer that does not stand where a file says is looked for


class SpanAnswer(NamedTuple):
    """One right answer; golds are tuples of them, an empty one where the passage has no answer."""

    text: str
    span: Span | None = None  # characters of the passage; None where the text is not found there


def placed(passage: str, text: str, start: int | None = None) -> SpanAnswer:
    """The answer where it stands: at `start`, else nearest to it; without `start` where it comes first.

    Whole words come before parts of longer ones. Text that a data set has written with other white space than
    its passage, or other signs between the letters, is taken as the passage has it.
    """
    if start is not None and start >= 0 and passage.startswith(text, start):
        return SpanAnswer(text, Span(start, start + len(text)))
    part: Span | None = None  # of a longer word
    for way in WAYS:
        if part is not None and way is str.isalnum:
            break  # as it is written, though inside a word, rather than letters with signs between them
        for span in _places(passage, text, start, way):
            if not within_words(passage, span):
                return SpanAnswer(passage[span.start : span.end], span)
            part = part or span
    return SpanAnswer(text) if part is None else SpanAnswer(passage[part.start : part.end], part)


def within_words(passage: str, span: Span) -> bool:
    """Whether it begins or ends between two letters or digits, as "art" in "party"; not in Chinese."""
    return any(
        0 < at < len(passage) and all(x.isalnum() and not UNSPACED.match(x) for x in passage[at - 1 : at + 1])
        for at in span
    )


WAYS: Final[tuple[Callable[[str], bool], ...]] = (  # which characters are compared
    lambda letter: True,
    lambda letter: not letter.isspace(),
    str.isalnum,
)


def _places(passage: str, text: str, start: int | None, counts: Callable[[str], bool]) -> list[Span]:
    """Where the text stands, the nearest to `start` first, of others than those near it none."""
    places = [i for i, letter in enumerate(passage) if counts(letter)]
    bare, wanted = "".join(passage[i] for i in places), "".join(filter(counts, text))
    found = [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", bare)] if wanted else []
    if start is not None:
        origin = bisect_left(places, start)
        found = sorted((at for at in found if abs(at - origin) <= NEAR), key=lambda at: abs(at - origin))
    return [Span(places[at], places[at + len(wanted) - 1] + 1) for at in found]


def passage_of(sample: Sample) -> str:
    """What its question is about: questions with the same passage stay together in a split."""
    return sample.parts[1].text


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
