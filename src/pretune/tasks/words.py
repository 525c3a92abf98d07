"""The vectors of words, whatever the tokens: which tokens each word is read off, and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from pretune.data.alignment import nearest_token, tokens_of
from pretune.data.rows import Row
from pretune.data.samples import Span

Token = Literal["first", "last", "mean"]


def tokens_read(
    words: Sequence[Sequence[Span]], rows: Sequence[Sequence[Row]], token: Token, part: int = 0
) -> Tensor:
    """(K, 3): row, token and word of each token that is read; words are counted through the batch.

    `rows` are those of each sample, `words` those of one of its parts. A word is read off the tokens of one
    row that share a character with it, or off the token before it where none does.
    """
    read: list[tuple[int, int, int]] = []
    row = word = 0
    for their_words, their_rows in zip(words, rows, strict=True):
        for place, tokens in _of_words(their_words, their_rows, part):
            chosen = {"first": tokens[:1], "last": tokens[-1:], "mean": tokens}[token]
            read += [(row + place, at, word) for at in chosen]
            word += 1
        row += len(their_rows)
    return torch.tensor(read, dtype=torch.long).view(-1, 3)


def _of_words(words: Sequence[Span], rows: Sequence[Row], part: int) -> Iterator[tuple[int, list[int]]]:
    """Of each word the row that it is read in and its tokens there."""
    found = [tokens_of(row, part, words) for row in rows]
    for w, span in enumerate(words):
        place = next((k for k, of_row in enumerate(found) if of_row[w]), 0)
        yield place, found[place][w] or [nearest_token(rows[place], part, span)]


def word_vectors(layer: Tensor, tokens: Tensor) -> Tensor:
    """The mean of each word's tokens: (N, T, D), (K, 3) -> (M, D)."""
    row, token, word = tokens.unbind(1)  # (K,) each
    read = layer[row, token].float()  # (K, D)
    words = int(word[-1]) + 1 if len(word) else 0  # M
    if words == len(word):
        return read
    counts = torch.bincount(word, minlength=words)  # (M,)
    return read.new_zeros(words, read.shape[1]).index_add(0, word, read) / counts[:, None]
