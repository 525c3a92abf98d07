"""Words as characters: their UTF-8 bytes between marks, as ELMo reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

START: Final = "<S>"
END: Final = "</S>"

# Characters as a model sees them: a byte is 1 to 256, 0 is left to padded tokens.
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PAD = 257, 258, 259, 260, 261


def spelled(words: Sequence[str], max_characters: int = 50) -> NDArray[np.int16]:
    """Characters of words as the model sees them: (W, C).

    A word is its mark of beginning, its UTF-8 bytes (at most C - 2), its mark of end, then padding. `<S>` and
    `</S>` are one character of their own between the marks.
    """
    room = max_characters - 2
    spelled_out = [word.encode("utf-8", "ignore")[:room] for word in words]
    lengths = np.fromiter(map(len, spelled_out), np.int64, len(words))  # (W,)
    table = np.full((len(words), max_characters), PAD, np.int16)  # (W, C)
    letters = np.frombuffer(b"".join(spelled_out), np.uint8).astype(np.int16) + 1
    ends = lengths.cumsum()
    rows = np.repeat(np.arange(len(words)) * max_characters + 1 - (ends - lengths), lengths)
    flat = table.reshape(-1)
    flat[rows + np.arange(len(letters))] = letters
    table[:, 0] = BEGIN_WORD
    table[np.arange(len(words)), lengths + 1] = END_WORD
    for word, character in ((START, BEGIN_SENTENCE), (END, END_SENTENCE)):
        if word in words:
            at = [i for i, one in enumerate(words) if one == word]
            table[at] = mark(character, max_characters)
    return table


def mark(character: int, max_characters: int = 50) -> NDArray[np.int16]:
    """The characters of a token that is a sign rather than a word: (C,)."""
    row = np.full(max_characters, PAD, np.int16)
    row[:3] = BEGIN_WORD, character, END_WORD
    return row
