"""Sentences of running text, by their end marks: for models that read one sentence at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pretune.data.lexicon import ABBREVIATIONS
from pretune.data.samples import Span

CLOSING: Final = "\"'”’»)\\]」』）》"
# An end mark with what closes after it, and the space after that (none in Chinese); or a blank line.
END: Final = re.compile(rf"(?:[.!?…]+[{CLOSING}]*(?=\s)|[。！？]+[…{CLOSING}]*|\n\s*\n)\s*")
NO_END: Final = re.compile(
    r"(?:^|[\s(\[“\"'])(?:[A-Z]|"
    + "|".join(re.escape(x[:-1]) for x in ABBREVIATIONS.split() if x[-1] == ".")
    + r")\.$"
)
LOOK_BACK: Final = 12  # characters: longer than any abbreviation


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text in order, without white space around them.

    A full stop after an abbreviation or an initial, or before a small letter, ends nothing.
    """
    start = 0
    for match in END.finditer(text):
        end = match.end()
        mark = match.group().rstrip()
        if mark == "." and (_abbreviated(text, match.start()) or text[end : end + 1].islower()):
            continue
        if sentence := text[start:end].strip():
            yield sentence
        start = end
    if sentence := text[start:].strip():
        yield sentence


def sentence_spans(text: str) -> tuple[Span, ...]:
    """Where the sentences of a text are."""
    found, at = [], 0
    for sentence in sentences(text):
        start = text.index(sentence, at)
        at = start + len(sentence)
        found.append(Span(start, at))
    return tuple(found)


def _abbreviated(text: str, stop: int) -> bool:
    return NO_END.search(text[max(0, stop - LOOK_BACK) : stop + 1]) is not None
