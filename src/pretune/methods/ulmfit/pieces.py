"""Pieces of words: SentencePiece's unigram model, read from its files, through `tokenizers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_sentencepiece(path: Path) -> Tokenizer:
    """A `.model` file of SentencePiece as a tokenizer that gives the same pieces."""
    raise NotImplementedError
