"""Units of text that no model chooses: its characters and its words, by which models are compared."""

from __future__ import annotations

import re
from typing import Final

from pretune.data.segment import CJK

# An ideograph or kana; else a run without white space in which a letter or a digit stands.
WORD: Final = re.compile(rf"[{CJK}]|[^\s{CJK}]*[^\W_{CJK}][^\s{CJK}]*")
UNITS: Final = (
    "characters are code points, white space counted as one space between words; a word is a run between "
    "white space with a letter or digit in it, of Chinese and Japanese a character"
)


def one_spaced(text: str) -> str:
    """The text with one space for each stretch of white space, and none around it."""
    return " ".join(text.split())


def count_words(text: str) -> int:
    """Runs between white space, and each Chinese or Japanese character alone; signs are none by themselves.

    count_words("It's 3 o'clock -- nearly.") == 4
    count_words("他说：GPT很好。") == 5
    """
    return sum(1 for _ in WORD.finditer(text))
