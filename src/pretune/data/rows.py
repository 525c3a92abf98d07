"""Rows: what a codec makes of a sample, one input sequence each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pretune.data.samples import Part, Span

NOTHING = Span(0, 0)  # the characters of a token that stands for no text


@dataclass(frozen=True)
class Row:
    """One input sequence; all lists have the row's length T."""

    ids: list[int]
    segments: list[int]  # 0 or 1, which side of a pair (BERT's token types)
    part: list[int]  # the part of the sample a token comes from; -1 for special tokens
    chars: list[Span]  # the characters of that part which a token covers
    spelled: list[str] | None = None  # what each token spells, for encoders that read characters

    def __len__(self) -> int:
        return len(self.ids)

    def reversed(self) -> Row:
        """The same tokens from right to left, for backward models."""
        spelled = None if self.spelled is None else self.spelled[::-1]
        return Row(self.ids[::-1], self.segments[::-1], self.part[::-1], self.chars[::-1], spelled)


@runtime_checkable
class Codec(Protocol):
    """Text -> ids, for whole batches of samples; saved beside the weights, without pickle."""

    @property
    def pad_id(self) -> int: ...

    @property
    def size(self) -> int:
        """How many ids there are (V)."""
        ...

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """Rows of each sample: usually one; two if `unordered` and the method reads both orders."""
        ...

    def describe(self) -> str:
        """One line for the user: which segmentation, how many ids."""
        ...

    def save(self, folder: Path) -> None: ...


@runtime_checkable
class Limited(Protocol):
    """A codec whose rows have at most `config.context` tokens; None: any number."""

    config: Any

    def unlimited(self) -> Codec:
        """The same tokens and marks, nothing cut: for tasks that cut rows into windows."""
        ...


def first_token(row: Row, part: int, char: int) -> int | None:
    """Index of the first token that covers or follows character `char` of `part`; None if none does."""
    return next(
        (
            t
            for t, (p, span) in enumerate(zip(row.part, row.chars, strict=True))
            if p == part and span.end > char
        ),
        None,
    )


def last_token(row: Row, part: int, char: int) -> int | None:
    """Index of the last token that starts before character `char` (exclusive end) of `part`."""
    last = None
    for t, (p, span) in enumerate(zip(row.part, row.chars, strict=True)):
        if p == part and span.start < char:
            last = t
    return last
