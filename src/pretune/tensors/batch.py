"""Rows -> one batch of tensors: the only place that pads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pretune.data.rows import Row

Spell = Callable[[Sequence[str]], Tensor]  # distinct words -> their characters (W, C)


@dataclass
class Batch:
    """B samples as N >= B rows of at most T tokens, padded on the right."""

    ids: Tensor  # (N, T); where there are `words`, which of them each token is
    mask: Tensor  # (N, T) True at tokens, False at padding
    segments: Tensor  # (N, T)
    owner: Tensor  # (N,) which sample a row belongs to
    given: dict[str, Tensor] = field(default_factory=dict)  # what the head may look at
    gold: dict[str, Tensor] = field(
        default_factory=dict
    )  # what the loss compares with; empty when predicting
    words: Tensor | None = None  # (W, C) characters of the distinct words, for encoders that read them

    @property
    def samples(self) -> int:
        """B. Owners are numbered 0..B-1 in order."""
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(1)  # (N,)

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.ids.to(device),
            self.mask.to(device),
            self.segments.to(device),
            self.owner.to(device),
            {name: x.to(device) for name, x in self.given.items()},
            {name: x.to(device) for name, x in self.gold.items()},
            None if self.words is None else self.words.to(device),
        )


def collate(
    rows: Sequence[Sequence[Row]],
    pad_id: int,
    given: dict[str, Tensor] | None = None,
    gold: dict[str, Tensor] | None = None,
    spell: Spell | None = None,
) -> Batch:
    """Rows per sample -> Batch; every sample must have a row, every row a token.

    With `spell` the rows' ids give way to places among the distinct words, whose characters `words` has.
    """
    flat = [row for of_sample in rows for row in of_sample]
    places: dict[str, int] = {}
    owner = [b for b, of_sample in enumerate(rows) for _ in of_sample]
    longest = max(map(len, flat))  # T
    ids = torch.full((len(flat), longest), pad_id, dtype=torch.long)  # (N, T)
    mask = torch.zeros((len(flat), longest), dtype=torch.bool)  # (N, T)
    segments = torch.zeros((len(flat), longest), dtype=torch.long)  # (N, T)
    for n, row in enumerate(flat):
        own = row.ids
        if spell is not None:
            own = [places.setdefault(word, len(places)) for word in row.spelled or ()]
        ids[n, : len(row)] = torch.tensor(own)
        segments[n, : len(row)] = torch.tensor(row.segments)
        mask[n, : len(row)] = True
    words = None
    if spell is not None:
        ids.masked_fill_(~mask, 0)
        words = spell(list(places))  # (W, C)
    return Batch(ids, mask, segments, torch.tensor(owner), given or {}, gold or {}, words)
