"""Capitals that a model does not read: how words are to be changed to get them back, and what that costs."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

AS_READ, FIRST, ALL, MIXED = range(4)  # what has to be done to the letters of a word
AT_START, SINGLE, ELSEWHERE = range(3)  # where the word stands: of a sentence; one letter, anywhere
SHAPE: Final = (3, 4)

LETTERS: Final = re.compile(r"[^\W\d_]+")
ENDED: Final = re.compile(r"(?:^|[.!?…。！？])[\s\"'“”‘’«»()\[\]—–-]*$")
LOOK_BACK: Final = 12  # characters, in which the end of the sentence before is looked for


def changes(read: str, text: str) -> tuple[NDArray[np.int64], int]:
    """(counts of the changes by place, SHAPE; letters of the words that are MIXED).

    `read` has as many characters as `text`, the same but for case.
    """
    counts, mixed = np.zeros(SHAPE, np.int64), 0
    for run in LETTERS.finditer(text):
        start, end = run.span()
        wanted, had = run.group(), read[start:end]
        change = AS_READ
        if wanted != had:
            firsts, whole = had[0].upper() + had[1:], had.upper()
            change = FIRST if wanted == firsts else ALL if wanted == whole else MIXED
        if change == MIXED:
            mixed += len(wanted)
        counts[_place(text, start, end), change] += 1
    return counts, mixed


def _place(text: str, start: int, end: int) -> int:
    if end - start == 1:
        return SINGLE
    before = text[max(0, start - LOOK_BACK) : start]
    if start > LOOK_BACK:
        before = "a" + before  # whose beginning is not the text's
    return AT_START if ENDED.search(before) else ELSEWHERE


def costs(counts: NDArray[np.int64], mixed: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nats of each document's changes, (D, 3, 4) and (D,) -> (D,), at their shares in all documents together.

    A word that is MIXED costs a bit for each letter besides. The shares, nine numbers, are taken as known.
    """
    total = counts.sum(0)  # (3, 4)
    shares = np.where(total, total, 1) / np.maximum(total.sum(1, keepdims=True), 1)
    found: NDArray[np.float64] = -(counts * np.log(shares)).sum((1, 2)) + mixed * np.log(2)
    return found
